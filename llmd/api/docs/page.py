"""The page that describes every route to people, made from the OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jinja2
from markupsafe import Markup

from llmd.api.access import Access
from llmd.api.docs.error_responses import ErrorCause, error_causes
from llmd.api.docs.schema_words import LinkedText, describe_type, example, refs
from llmd.api.route import JsonSchema, Operation, Route, path_parameters, plain_path

_ACCESS_TEXTS = {Access.OPEN: "no key", Access.USER: "any key", Access.ADMIN: "admin key"}


@dataclass(frozen=True)
class Field:
    """A field of a body, or a parameter. `note` says whether it can be left out."""

    name: str
    type: list[LinkedText]
    note: str
    description: str


@dataclass(frozen=True)
class TypeView:
    """The type of a body, with its fields if it is an object with named fields."""

    type: list[LinkedText]
    description: str
    fields: list[Field]


@dataclass(frozen=True)
class Entry:
    """A method of a route, with all that the page shows of it."""

    id: str
    method: str
    path: str
    aliases: tuple[str, ...]
    access: str
    operation: Operation
    parameters: list[Field]
    body: TypeView | None
    reply: TypeView | None
    causes: list[ErrorCause]
    curl: str


def render(routes: list[Route], document: JsonSchema) -> str:
    """Return the page as HTML."""
    schemas = document["components"]["schemas"]
    sections: dict[str, list[Entry]] = {}
    for route in routes:
        entries = [_entry(route, method, document) for method in route.operations]
        sections.setdefault(route.tag, []).extend(entries)
    every = {cause for entries in sections.values() for entry in entries for cause in entry.causes}
    # Bodies and replies are shown with their routes. The section "Objects" has those within them.
    inner = {"Error", *(name for schema in schemas.values() for name in refs(schema))}
    sent = _sent_objects(schemas, document)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("llmd.api.docs", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["prose"] = _prose
    return environment.get_template("page.html.j2").render(
        info=document["info"],
        sections=sections,
        causes=sorted(every),
        objects={
            name: _type_view(schemas[name], schemas, is_reply=name not in sent)
            for name in sorted(inner)
        },
    )


def _sent_objects(schemas: JsonSchema, document: JsonSchema) -> set[str]:
    """Return the names of the objects that clients send: as a body, or within one."""
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    left = [name for operation in operations for name in refs(operation.get("requestBody"))]
    found: set[str] = set()
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += refs(schemas[name])
    return found


def _entry(route: Route, method: str, document: JsonSchema) -> Entry:
    """Return the entry of a method of a route."""
    operation = route.operations[method]
    schemas = document["components"]["schemas"]
    described = document["paths"][plain_path(route.path)][method.lower()]
    sent = described.get("requestBody", {}).get("content", {})
    body = sent.get("application/json", {}).get("schema")
    answered = described["responses"][str(operation.status)].get("content", {})
    reply = answered.get(operation.content_type, {}).get("schema")
    return Entry(
        id=described["operationId"],
        method=method,
        path=plain_path(route.path),
        aliases=tuple(plain_path(path) for path in route.aliases),
        access=_ACCESS_TEXTS[operation.access],
        operation=operation,
        parameters=[
            Field(
                name=parameter["name"],
                type=describe_type(parameter["schema"]),
                note=_request_note(parameter["schema"], is_required=parameter["required"]),
                description=f"In the {parameter['in']}. {parameter.get('description', '')}",
            )
            for parameter in described["parameters"]
        ],
        body=_type_view(body, schemas) if body is not None else None,
        reply=_type_view(reply, schemas, is_reply=True) if reply is not None else None,
        causes=error_causes(route, operation),
        curl=_curl(route.path, method, operation, body, schemas),
    )


def _type_view(schema: JsonSchema, schemas: JsonSchema, *, is_reply: bool = False) -> TypeView:
    """Return the type and the fields of a schema. Required fields of a request come first."""
    type_ = describe_type(schema)
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    required = schema.get("required", [])
    fields = [
        Field(
            name=name,
            type=describe_type(field),
            note=(_reply_note if is_reply else _request_note)(field, is_required=name in required),
            description=field.get("description", ""),
        )
        for name, field in schema.get("properties", {}).items()
    ]
    if not is_reply:
        fields.sort(key=lambda field: field.name not in required)
    return TypeView(type_, schema.get("description", ""), fields)


def _request_note(schema: JsonSchema, *, is_required: bool) -> str:
    """Return whether a client must send a field, and its default if it has one."""
    if is_required:
        return "required"
    if schema.get("default") is not None:
        return f"default {json.dumps(schema['default'], ensure_ascii=False)}"
    return "optional"


def _reply_note(schema: JsonSchema, *, is_required: bool) -> str:
    """Return whether a field may be missing in an answer. One with a default never is."""
    return "" if is_required or "default" in schema else "may be missing"


def _curl(
    path: str, method: str, operation: Operation, body: JsonSchema | None, schemas: JsonSchema
) -> str:
    """Return a command for the shell. It can be run as it is if all parameters have examples."""
    filled = plain_path(path)
    for parameter in path_parameters(path):
        value = parameter.schema.get("examples", [parameter.name.upper()])[0]
        filled = filled.replace(f"{{{parameter.name}}}", str(value))
    command = "curl" if method in {"GET", "POST"} and (method == "GET" or body) else None
    words = [f'{command or f"curl -X {method}"} "$LLMD_URL{filled}"']
    if operation.access is not Access.OPEN:
        words.append('-H "Authorization: Bearer $LLMD_KEY"')
    if body is not None:
        text = json.dumps(example(body, schemas), ensure_ascii=False)
        # A single quote cannot be escaped within single quotes: it stands between two strings.
        words.append("-d '{}'".format(text.replace("'", "'\\''")))
    return " \\\n  ".join(words)


def _prose(text: str) -> Markup:
    """Return text as HTML: paragraphs as such, and text between backticks as code."""
    return Markup("").join(
        Markup("<p>{}</p>").format(_inline(paragraph)) for paragraph in text.split("\n\n")
    )


def _inline(text: str) -> Markup:
    """Return a paragraph as HTML, with the text between backticks as code."""
    pieces: Iterable[Any] = (
        Markup("<code>{}</code>").format(piece) if is_code % 2 else piece
        for is_code, piece in enumerate(text.replace("``", "`").split("`"))
    )
    return Markup("").join(pieces)
