"""The OpenAPI document: complete, and consistent with the routes."""

from __future__ import annotations

import inspect as python
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from falcon import inspect

from llmd import __version__, errors
from llmd.api.access import Access
from llmd.api.app import routes
from llmd.api.docs import openapi
from llmd.api.docs.error_responses import error_causes
from llmd.api.docs.field_texts import FIELD_TEXTS
from llmd.api.errors import KINDS
from llmd.api.route import LIMIT, Operation, Parameter, Route, plain_path
from llmd.store.profiles import Profile
from tests.support.service import Service

METHODS = {"get", "put", "post", "patch", "delete"}


@pytest.fixture
def document(service: Service) -> Any:
    """Return the document as it is sent, without a key."""
    result = service.ask("GET", "/openapi.json", key="")
    assert result.status_code == 200
    assert result.headers["content-type"] == "application/json"
    return result.json


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield each path with each method and its operation."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def refs(value: Any) -> Iterator[str]:
    """Yield every reference within a value."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name == "$ref" and isinstance(item, str):
                yield item
            else:
                yield from refs(item)
    elif isinstance(value, list):
        for item in value:
            yield from refs(item)


def resolved(document: Any, value: Any) -> Any:
    """Return a value, or the value to which it refers."""
    if "$ref" not in value:
        return value
    root, *names = value["$ref"].split("/")
    assert root == "#"
    found = document
    for name in names:
        found = found[name]
    return found


def document_of(operation: Operation, path: str = "/x", resource: object = None) -> Any:
    """Return the document of a single operation."""
    route = Route(path, resource, {"POST": operation})
    return openapi.make([route])


def test_the_document_has_name_version_and_address(document: Any) -> None:
    """The document has name, version, description and a relative address."""
    assert document["openapi"].startswith("3.1.")
    assert (document["info"]["title"], document["info"]["version"]) == ("llmd", __version__)
    assert document["info"]["description"]
    assert document["servers"] == [{"url": "/"}]


def test_every_route_and_method_is_in_the_document_and_no_other(
    service: Service, document: Any
) -> None:
    """The document has exactly the routes and methods of the application, including aliases."""
    found = {
        (plain_path(route.path), method.method.lower())
        for route in inspect.inspect_routes(service.app)
        for method in route.methods
        # HEAD is the same as GET without a body.
        if not method.internal and method.method != "HEAD"
    }
    assert found == {(path, method) for path, method, _ in operations(document)}


def test_every_responder_has_an_operation(service: Service) -> None:
    """Every responder of a resource has an operation."""
    for route in routes(service.services):
        responders = {
            name.removeprefix("on_").upper()
            for name, _ in python.getmembers(route.resource, callable)
            if name.startswith("on_")
        }
        assert responders - {"OPTIONS"} == set(route.operations), route.path


def test_no_two_routes_share_a_class_of_resources(service: Service) -> None:
    """No two routes share a class, because the access of a method is looked up by the class."""
    classes = [type(route.resource) for route in routes(service.services)]
    assert len(set(classes)) == len(classes)


def test_every_reference_leads_somewhere(document: Any) -> None:
    """Every reference has a target, and every component is referred to."""
    found = set(refs(document))
    for ref in found:
        assert resolved(document, {"$ref": ref}), ref
    components = document["components"]
    for kind in ("schemas", "responses", "headers"):
        names = {f"#/components/{kind}/{name}" for name in components[kind]}
        assert names <= found, names - found


def test_every_operation_is_complete(document: Any) -> None:
    """Every operation has a unique id, a summary, a listed tag and described responses."""
    tags = {tag["name"] for tag in document["tags"]}
    ids = []
    for path, method, operation in operations(document):
        assert method in METHODS
        ids.append(operation["operationId"])
        assert operation["summary"]
        assert not operation["summary"].endswith(".")
        assert set(operation["tags"]) <= tags
        path_names = set(re.findall(r"{(\w+)}", path))
        described = {parameter["name"]: parameter for parameter in operation["parameters"]}
        assert {name for name, at in described.items() if at["in"] == "path"} == path_names
        assert all(described[name]["required"] for name in path_names)
        for response in operation["responses"].values():
            assert resolved(document, response)["description"]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z]\w*", name) for name in ids)


def test_every_field_that_is_required_is_there(document: Any) -> None:
    """Every required field of a schema is one of its properties."""
    for name, schema in document["components"]["schemas"].items():
        assert set(schema.get("required", [])) <= set(schema.get("properties", {})), name


def test_the_document_asks_for_a_key_where_the_daemon_does(service: Service, document: Any) -> None:
    """The document requires a key, in one of three forms, exactly where the daemon does."""
    schemes = document["components"]["securitySchemes"]
    assert set(schemes) == {"bearer", "x-api-key", "api-key"}
    for route in routes(service.services):
        for method, operation in route.operations.items():
            described = document["paths"][plain_path(route.path)][method.lower()]
            is_open = operation.access is Access.OPEN
            assert described["security"] == ([] if is_open else [{name: []} for name in schemes])
            assert ("admin key" in described["description"]) is (operation.access is Access.ADMIN)
            assert ({"401", "429"} <= set(described["responses"])) is not is_open


def test_errors_are_described_with_codes_and_headers() -> None:
    """Error responses have the codes of the table, their headers and the common body."""
    operation = Operation(
        summary="Do",
        access=Access.USER,
        body=Profile,
        errors=(errors.Conflict, errors.PromptTooLong),
    )
    document = document_of(operation)
    described = document["paths"]["/x"]["post"]["responses"]
    responses = {status: resolved(document, response) for status, response in described.items()}
    for kind in (errors.MalformedBody, errors.InvalidField, errors.Busy, errors.EngineDied):
        row = KINDS[kind]
        assert f"`{row.code}`" in responses[str(row.status)]["description"]
    for response in (response for status, response in responses.items() if status != "200"):
        schema = response["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/Error"}
        assert "x-request-id" in response["headers"]
    with_header = {
        "401": "WWW-Authenticate",
        "405": "Allow",
        "409": "x-should-retry",
        "429": "Retry-After",
        "503": "Retry-After",
    }
    for status, header in with_header.items():
        assert header in responses[status]["headers"]
    assert "Retry-After" not in responses["422"]["headers"]
    assert {"400", "403", "408", "413", "431", "500", "501", "default"} <= set(responses)


def test_a_field_that_is_wrong_is_a_400_for_clients_of_openai() -> None:
    """In OpenAI's routes a wrong field is a 400."""

    class Resource:
        is_openai = True

    operation = Operation(summary="Do", access=Access.USER, body=Profile)
    found = error_causes(Route("/x", Resource(), {"POST": operation}), operation)
    assert [cause.status for cause in found if cause.code == "invalid_field"] == [400]


def test_an_answer_that_may_be_a_stream_has_both_types(document: Any) -> None:
    """An operation that can stream has both content types."""
    content = document["paths"]["/answer"]["post"]["responses"]["200"]["content"]
    assert set(content) == {"application/json", "text/event-stream"}
    assert "`done`" in content["text/event-stream"]["schema"]["description"]


def test_an_answer_without_a_body_has_no_type(document: Any) -> None:
    """An operation without a reply has a 204 without content."""
    responses = document["paths"]["/keys/{key_id}"]["delete"]["responses"]
    assert "200" not in responses
    assert "content" not in responses["204"]


def test_a_body_is_closed_and_may_be_left_out_only_where_the_daemon_lets_it(
    service: Service, document: Any
) -> None:
    """Bodies have no additional properties, and only that of `POST /auth/key` is optional."""
    for path, method, operation in operations(document):
        if "requestBody" not in operation:
            continue
        sent = operation["requestBody"]
        assert sent["required"] is ((path, method) != ("/auth/key", "post"))
        schema = resolved(document, sent["content"]["application/json"]["schema"])
        assert schema["additionalProperties"] is False, path
    made_key = service.ask("POST", "/auth/key", key=service.admin)
    assert made_key.status_code == 200


def test_a_converter_in_a_path_is_left_out() -> None:
    """The converter of a path parameter is left out, and its name stays."""
    operation = Operation(
        summary="Show",
        access=Access.USER,
        query=(LIMIT,),
        headers=(Parameter("X-Some", "A header."),),
    )
    document = document_of(operation, "/v1/things/{thing_id:path}")
    described = document["paths"]["/v1/things/{thing_id}"]["post"]
    assert described["operationId"] == "post_v1_things_thing_id"
    assert [(at["name"], at["in"], at["required"]) for at in described["parameters"]] == [
        ("thing_id", "path", True),
        ("limit", "query", False),
        ("X-Some", "header", False),
    ]


def test_an_alias_names_its_route() -> None:
    """An alias of a route differs only in its id and in a description that names the route."""
    operation = Operation(summary="Do", access=Access.OPEN, reply=str)
    route = Route("/v1/x", None, {"GET": operation}, aliases=("/x",))
    paths = openapi.make([route])["paths"]
    first, second = paths["/v1/x"]["get"], paths["/x"]["get"]
    assert "`/v1/x`" in second.pop("description")
    assert (first.pop("operationId"), second.pop("operationId")) == ("get_v1_x", "get_x")
    first.pop("description")
    assert first == second


@pytest.mark.parametrize("struct", FIELD_TEXTS, ids=lambda struct: str(struct.__name__))
def test_every_field_of_a_body_is_described(struct: type[msgspec.Struct]) -> None:
    """Every field of a struct has a text, and there is no text without a field."""
    assert set(FIELD_TEXTS[struct]) == set(struct.__struct_fields__)


def test_the_document_is_made_once(service: Service) -> None:
    """The document is the same for every request."""
    found = [service.ask("GET", "/openapi.json", key=key).content for key in ("", service.admin)]
    assert found[0] == found[1]
