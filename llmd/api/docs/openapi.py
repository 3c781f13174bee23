"""The OpenAPI document, made from the routes and from the structs of their bodies."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from llmd import __version__
from llmd.api.access import Access
from llmd.api.docs.error_responses import (
    DEFAULT_RESPONSE,
    HEADERS,
    REQUEST_ID,
    Error,
    error_responses,
    header_refs,
)
from llmd.api.docs.field_texts import FIELD_TEXTS
from llmd.api.route import (
    JsonSchema,
    Operation,
    Parameter,
    Route,
    path_parameters,
    plain_path,
)

_REF = "#/components/schemas/{name}"

_DESCRIPTION = """\
One machine as the LLM server of a LAN.

Bodies are JSON in UTF-8, whatever `Content-Type` a request has. Trailing slashes in a path are
ignored. Every response has an `x-request-id`, by which the log has the request. Times are in Unix
seconds."""

_ACCESS_TEXTS = {
    Access.OPEN: "Needs no key.",
    Access.USER: "Needs a key.",
    Access.ADMIN: "Needs an admin key.",
}

SECURITY: JsonSchema = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "`Authorization: Bearer KEY`, or `Authorization: KEY`.",
    },
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
}


def make(routes: Iterable[Route]) -> JsonSchema:
    """Return the OpenAPI document of the routes."""
    routes = list(routes)
    components = _Components(routes)
    paths: JsonSchema = {}
    for route in routes:
        for path in route.paths:
            paths[plain_path(path)] = {
                method.lower(): _operation(route, path, method, operation, components)
                for method, operation in route.operations.items()
            }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "llmd",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in routes)],
        "paths": paths,
        "components": {
            "schemas": components.schemas,
            "responses": components.responses,
            "headers": HEADERS,
            "securitySchemes": SECURITY,
        },
    }


class _Components:
    """The components that operations share: schemas of types, and error responses."""

    def __init__(self, routes: list[Route]) -> None:
        types = [*_types(routes), *FIELD_TEXTS, Error]
        found, self.schemas = msgspec.json.schema_components(types, ref_template=_REF)
        # Types are looked up by identity, because not every type is hashable.
        self._by_id = {id(type_): schema for type_, schema in zip(types, found, strict=True)}
        for schema in self.schemas.values():
            if "description" in schema:
                schema["description"] = inspect.cleandoc(schema["description"])
        for struct, texts in FIELD_TEXTS.items():
            name = self.of(struct)["$ref"].rpartition("/")[2]
            properties = self.schemas[name]["properties"]
            for field, text in texts.items():
                properties[field] = text | properties[field]
        self.responses: JsonSchema = {"default": DEFAULT_RESPONSE}

    def of(self, type_: Any) -> JsonSchema:
        """Return the schema of a type."""
        return self._by_id[id(type_)]

    def errors(self, route: Route, operation: Operation) -> JsonSchema:
        """Return references to the error responses of an operation, by status."""
        found = error_responses(route, operation)
        self.responses |= found
        return {
            name.partition("-")[0]: {"$ref": f"#/components/responses/{name}"} for name in found
        }


def _types(routes: list[Route]) -> Iterator[Any]:
    """Yield the types of all bodies and replies."""
    for route in routes:
        for operation in route.operations.values():
            yield from (t for t in (operation.body, operation.reply) if t is not None)


def _operation(
    route: Route, path: str, method: str, operation: Operation, components: _Components
) -> JsonSchema:
    """Return the operation object of a method at one of the route's paths."""
    paragraphs = [operation.description, _ACCESS_TEXTS[operation.access]]
    if path != route.path:
        paragraphs.insert(0, f"The same as `{plain_path(route.path)}`.")
    described: JsonSchema = {
        "operationId": _operation_id(method, path),
        "tags": [route.tag],
        "summary": operation.summary,
        "description": "\n\n".join(filter(None, paragraphs)),
        "parameters": [
            *(_parameter(parameter, "path") for parameter in path_parameters(path)),
            *(_parameter(parameter, "query") for parameter in operation.query),
            *(_parameter(parameter, "header") for parameter in operation.headers),
        ],
        "security": [] if operation.access is Access.OPEN else [{name: []} for name in SECURITY],
    }
    if operation.body is not None:
        described["requestBody"] = {
            "required": not operation.body_optional,
            "content": {"application/json": {"schema": components.of(operation.body)}},
        }
    described["responses"] = {
        str(operation.status): _success_response(operation, components),
        **components.errors(route, operation),
        "default": {"$ref": "#/components/responses/default"},
    }
    return described


def _operation_id(method: str, path: str) -> str:
    words = re.findall(r"\w+", plain_path(path))
    return "_".join([method.lower(), *words])


def _parameter(parameter: Parameter, location: str) -> JsonSchema:
    description = {"description": parameter.description} if parameter.description else {}
    return {
        "name": parameter.name,
        "in": location,
        **description,
        "required": parameter.required,
        "schema": parameter.schema,
    }


def _success_response(operation: Operation, components: _Components) -> JsonSchema:
    """Return the response of success."""
    reply: JsonSchema = {"description": "Done.", "headers": header_refs(REQUEST_ID)}
    if operation.reply is None:
        return reply
    content: JsonSchema = {operation.content_type: {"schema": components.of(operation.reply)}}
    if operation.stream:
        # The schema is that of a single event, as OpenAPI's tools expect.
        content["text/event-stream"] = {
            "schema": {
                "type": "object",
                "description": operation.stream,
                "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
                "required": ["data"],
            }
        }
    return reply | {"description": "Success.", "content": content}
