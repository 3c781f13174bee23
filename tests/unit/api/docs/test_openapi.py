"""The OpenAPI document: whole, right, and as the daemon really answers."""

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
    """Give the document as it is sent, without a key."""
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
    """Yield every reference."""
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
    """Return a value, or what it refers to."""
    if "$ref" not in value:
        return value
    root, *names = value["$ref"].split("/")
    assert root == "#"
    found = document
    for name in names:
        found = found[name]
    return found


def made(operation: Operation, path: str = "/x", resource: object = None) -> Any:
    """Return what a document says of a single operation."""
    route = Route(path, resource, {"POST": operation})
    return openapi.make([route])


def test_the_document_says_what_it_is_of(document: Any) -> None:
    """Name, version, and the address that it came from."""
    assert document["openapi"].startswith("3.1.")
    assert (document["info"]["title"], document["info"]["version"]) == ("llmd", __version__)
    assert document["info"]["description"]
    assert document["servers"] == [{"url": "/"}]


def test_every_route_and_method_is_in_the_document_and_no_other(
    service: Service, document: Any
) -> None:
    """As the application itself knows its routes, also under their other paths."""
    found = {
        (plain_path(route.path), method.method.lower())
        for route in inspect.inspect_routes(service.app)
        for method in route.methods
        if not method.internal
    }
    assert found == {(path, method) for path, method, _ in operations(document)}


def test_every_responder_has_an_operation(service: Service) -> None:
    """A method that is added to a resource is described, or this fails."""
    for route in routes(service.services):
        responders = {
            name.removeprefix("on_").upper()
            for name, _ in python.getmembers(route.resource, callable)
            if name.startswith("on_")
        }
        assert responders - {"OPTIONS"} == set(route.operations), route.path


def test_no_two_routes_share_a_class_of_resources(service: Service) -> None:
    """Who may use a method is looked up by the class: one would open the other."""
    classes = [type(route.resource) for route in routes(service.services)]
    assert len(set(classes)) == len(classes)


def test_every_reference_leads_somewhere(document: Any) -> None:
    """And every schema is referred to."""
    found = set(refs(document))
    for ref in found:
        assert resolved(document, {"$ref": ref}), ref
    components = document["components"]
    for kind in ("schemas", "responses", "headers"):
        names = {f"#/components/{kind}/{name}" for name in components[kind]}
        assert names <= found, names - found


def test_every_operation_is_told_whole(document: Any) -> None:
    """A name of its own, a summary, a tag that is listed, answers with descriptions."""
    tags = {tag["name"] for tag in document["tags"]}
    ids = []
    for path, method, operation in operations(document):
        assert method in METHODS
        ids.append(operation["operationId"])
        assert operation["summary"]
        assert not operation["summary"].endswith(".")
        assert set(operation["tags"]) <= tags
        places = set(re.findall(r"{(\w+)}", path))
        told = {parameter["name"]: parameter for parameter in operation["parameters"]}
        assert {name for name, at in told.items() if at["in"] == "path"} == places
        assert all(told[name]["required"] for name in places)
        for response in operation["responses"].values():
            assert resolved(document, response)["description"]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z]\w*", name) for name in ids)


def test_every_field_that_is_required_is_there(document: Any) -> None:
    """In every schema."""
    for name, schema in document["components"]["schemas"].items():
        assert set(schema.get("required", [])) <= set(schema.get("properties", {})), name


def test_the_document_asks_for_a_key_where_the_daemon_does(service: Service, document: Any) -> None:
    """In each of the three ways, or not at all."""
    schemes = document["components"]["securitySchemes"]
    assert set(schemes) == {"bearer", "x-api-key", "api-key"}
    for route in routes(service.services):
        for method, operation in route.operations.items():
            told = document["paths"][plain_path(route.path)][method.lower()]
            is_open = operation.access is Access.OPEN
            assert told["security"] == ([] if is_open else [{name: []} for name in schemes])
            assert ("admin key" in told["description"]) is (operation.access is Access.ADMIN)
            assert ({"401", "429"} <= set(told["responses"])) is not is_open


def test_errors_are_told_with_their_codes_and_headers() -> None:
    """By the table that answers them; the one body for all."""
    operation = Operation(
        summary="Do",
        access=Access.USER,
        body=Profile,
        errors=(errors.Conflict, errors.PromptTooLong),
    )
    document = made(operation)
    told = document["paths"]["/x"]["post"]["responses"]
    responses = {status: resolved(document, response) for status, response in told.items()}
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
    """As the daemon answers them."""

    class Resource:
        is_openai = True

    operation = Operation(summary="Do", access=Access.USER, body=Profile)
    found = error_causes(Route("/x", Resource(), {"POST": operation}), operation)
    assert [cause.status for cause in found if cause.code == "invalid_field"] == [400]


def test_an_answer_that_may_be_a_stream_has_both_types(document: Any) -> None:
    """The body for the one, text for the other."""
    content = document["paths"]["/answer"]["post"]["responses"]["200"]["content"]
    assert set(content) == {"application/json", "text/event-stream"}
    assert "`done`" in content["text/event-stream"]["schema"]["description"]


def test_an_answer_without_a_body_has_no_type(document: Any) -> None:
    """204 and nothing else."""
    responses = document["paths"]["/keys/{key_id}"]["delete"]["responses"]
    assert "200" not in responses
    assert "content" not in responses["204"]


def test_a_body_is_closed_and_may_be_left_out_only_where_the_daemon_lets_it(
    service: Service, document: Any
) -> None:
    """`additionalProperties` is false for all that clients send to llmd's own routes."""
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
    """Its name stays; what it takes is any text."""
    operation = Operation(
        summary="Show",
        access=Access.USER,
        query=(LIMIT,),
        headers=(Parameter("X-Some", "A header."),),
    )
    document = made(operation, "/v1/things/{thing_id:path}")
    told = document["paths"]["/v1/things/{thing_id}"]["post"]
    assert told["operationId"] == "post_v1_things_thing_id"
    assert [(at["name"], at["in"], at["required"]) for at in told["parameters"]] == [
        ("thing_id", "path", True),
        ("limit", "query", False),
        ("X-Some", "header", False),
    ]


def test_other_paths_of_a_route_say_whose_they_are() -> None:
    """With everything else the same, but for the name."""
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
    """And no field that is not there."""
    assert set(FIELD_TEXTS[struct]) == set(struct.__struct_fields__)


def test_the_document_is_made_once(service: Service) -> None:
    """The very same for every request."""
    found = [service.ask("GET", "/openapi.json", key=key).content for key in ("", service.admin)]
    assert found[0] == found[1]
