"""The daemon accepts and answers what the OpenAPI document says."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from falcon import testing

from llmd import errors
from llmd.api import body
from llmd.api.app import routes
from llmd.api.docs.error_responses import Error
from llmd.api.docs.field_texts import FIELD_TEXTS
from llmd.api.route import LIMIT, PATH_PARAMETERS, path_parameters
from llmd.errors import InvalidField, LlmdError
from llmd.store.profiles import Profile, check_name
from llmd.store.sessions import session_id
from tests.support.service import Service


@pytest.fixture
def document(service: Service) -> Any:
    """Return the document as it is sent."""
    return service.ask("GET", "/openapi.json", key="").json


def resolved(document: Any, response: Any) -> Any:
    """Return the response to which a reference refers."""
    return document["components"]["responses"][response["$ref"].rpartition("/")[2]]


def is_accepted(check: Any, value: Any) -> bool:
    """Return whether the code accepts a value."""
    try:
        check(value)
    except InvalidField:
        return False
    return True


@pytest.mark.parametrize(
    "value", ["1", "a.b_c-D", ".", "x" * 64, "x" * 65, "", "a b", "é", "a/b", "-", "a\x00"]
)
def test_a_name_is_as_the_document_says(value: str, document: Any) -> None:
    """The patterns of session ids and profile names accept the same texts as the code."""
    fields = document["components"]["schemas"]["AnswerRequest"]["properties"]
    patterns = [fields["session_id"]["pattern"], PATH_PARAMETERS["session_id"].schema["pattern"]]
    for pattern in patterns:
        assert bool(re.search(pattern, value)) is is_accepted(session_id, value)
    pattern = PATH_PARAMETERS["name"].schema["pattern"]
    assert bool(re.search(pattern, value)) is is_accepted(check_name, value)


@pytest.mark.parametrize("value", [0, 1, 100, 1000, 1001, -1])
def test_a_limit_is_as_the_document_says(value: int) -> None:
    """The bounds and the default of `limit` are those of the code."""

    def read(limit: int) -> None:
        body.limit_of(testing.create_req(query_string=f"limit={limit}"))

    schema = LIMIT.schema
    assert (schema["minimum"] <= value <= schema["maximum"]) is is_accepted(read, value)
    assert body.limit_of(testing.create_req()) == schema["default"]


def profile_takes(field: str, value: object) -> bool:
    """Return whether a field of a profile accepts a value."""
    try:
        msgspec.convert({field: value}, Profile)
    except msgspec.ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", ""),
        ("model", "a.gguf"),
        ("model", ".gguf"),
        ("model", "a/b.gguf"),
        ("model", "a"),
        ("human_label", "You there"),
        ("human_label", "a\nb"),
        ("template", "Q: {input}"),
        ("template", "Q:"),
    ],
)
def test_a_profiles_pattern_is_that_of_the_code(field: str, value: str) -> None:
    """The patterns of profile fields accept the same texts as the code."""
    pattern = FIELD_TEXTS[Profile][field]["pattern"]
    assert bool(re.search(pattern, value)) is profile_takes(field, value)


def test_a_field_that_overrides_the_profile_has_its_bounds(document: Any) -> None:
    """The fields of a request that override the profile have the profile's bounds."""
    schemas = document["components"]["schemas"]
    own = schemas["AnswerRequest"]["properties"]
    assert (own["temperature"]["minimum"], own["temperature"]["maximum"]) == (0, 2)
    assert own["top_p"]["exclusiveMinimum"] == 0
    assert own["seed"]["maximum"] == 2**32 - 2
    shared = set(own) & set(schemas["Profile"]["properties"]) - {"stop"}
    assert all({"minimum", "exclusiveMinimum"} & set(own[name]) for name in shared)


def store_examples(service: Service) -> None:
    """Store a session with a turn, and a profile that is not selected."""
    service.ask("POST", "/answer", {"prompt": "hi", "session_id": 9}, key=service.admin)
    service.put_profile("spare")


def filled(service: Service, path: str) -> str:
    """Return a path with the names of things that exist."""
    named = {"session_id": "9", "name": "spare", "key_id": service.other_key.id}
    for parameter in path_parameters(path):
        path = path.replace(f"{{{parameter.name}}}", named.get(parameter.name, "none"))
    return path


BODIES: dict[tuple[str, str], object] = {
    ("POST", "/answer"): {"prompt": "hi"},
    ("POST", "/models/model"): {"model": "tiny.gguf"},
    ("PATCH", "/sessions/{session_id}"): {"name": "other"},
    ("PATCH", "/keys/{key_id}"): {"name": "other"},
    ("PUT", "/profiles/{name}"): {"top_k": 3},
    ("POST", "/auth/key"): {},
}
OWN = [
    *(("GET", path) for path in ("/answer", "/models", "/auth", "/keys", "/keys/{key_id}")),
    *(("GET", path) for path in ("/sessions", "/sessions/{session_id}", "/profiles")),
    *(("GET", path) for path in ("/profiles/{name}", "/status", "/health", "/livez")),
    *BODIES,
]


@pytest.mark.parametrize(("method", "path"), OWN)
def test_an_answer_has_exactly_the_described_shape(
    service: Service, method: str, path: str
) -> None:
    """The answer of each operation has exactly the fields of its type."""
    store_examples(service)
    [route] = [route for route in routes(service.services) if route.path == path]
    operation = route.operations[method]
    result = service.ask(
        method, filled(service, path), BODIES.get((method, path)), key=service.admin
    )
    assert result.status_code == operation.status
    assert result.headers["content-type"] == operation.content_type
    read = msgspec.convert(result.json, operation.reply)
    assert msgspec.json.decode(msgspec.json.encode(read)) == result.json


def test_an_error_has_exactly_the_described_shape(service: Service) -> None:
    """An error has exactly the fields of its type, with and without token counts."""
    for error in (errors.PromptTooLong(99, 64), errors.Busy("full")):
        service.engine.submit_error = error
        result = service.ask("POST", "/answer", {"prompt": "hi"})
        assert msgspec.to_builtins(msgspec.convert(result.json, Error)) == result.json
    service.admission.drain()
    result = service.ask("GET", "/health")
    unhealthy = {"status": "draining", "reason": result.json["message"]}
    read = msgspec.to_builtins(msgspec.convert(result.json, Error))
    assert read | unhealthy == result.json


DESCRIBED_ERRORS: list[LlmdError] = [
    errors.PromptTooLong(99, 64),
    errors.Conflict("not now"),
    errors.Busy("full"),
    errors.EngineLoading("loading"),
    errors.StoreUnavailable("locked"),
    errors.StoreFull("full"),
    errors.InvalidField("wrong", param="top_k"),
    errors.UnknownProfile("none"),
]


@pytest.mark.parametrize("error", DESCRIBED_ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_and_its_headers_are_described(
    service: Service, document: Any, error: LlmdError
) -> None:
    """The document has the status, the code and the headers of an error."""
    service.engine.submit_error = error
    result = service.ask("POST", "/answer", {"prompt": "hi"})
    described = document["paths"]["/answer"]["post"]["responses"]
    response = resolved(document, described[str(result.status_code)])
    assert f"`{result.json['error']['code']}`" in response["description"]
    named = {name.lower() for name in response["headers"]}
    sent = {"retry-after", "x-should-retry", "www-authenticate"} & set(result.headers)
    assert sent <= named


@pytest.mark.parametrize(
    ("method", "path"),
    [*OWN, *(("DELETE", path) for method, path in OWN if method == "GET" and "{" in path)],
)
def test_a_refusal_is_described(service: Service, document: Any, method: str, path: str) -> None:
    """The document has the status and the code of refused keys, roles, bodies and names."""
    described = document["paths"][path][method.lower()]["responses"]
    missing, url = (re.sub(r"{\w+}", name, path) for name in ("nothing", "a%20b"))
    results = [
        service.ask(method, missing, BODIES.get((method, path)), key=service.admin),
        service.ask(method, url, b"{", key=""),
        service.ask(method, url, b"{", key=service.user),
        service.ask(method, url, b"{", key=service.admin, query_string="limit=0"),
        service.ask(method, url, {"no": 1}, key=service.admin),
    ]
    for result in results:
        if result.status_code < 300:
            continue
        response = resolved(document, described[str(result.status_code)])
        assert f"`{result.json['error']['code']}`" in response["description"]
