"""JSON Schema in words: the values that a field takes, and an example of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from llmd.api.route import JsonSchema

_TYPE_NAMES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "null": "null",
    "object": "object",
    "array": "list",
}
_BOUNDS = (
    ("minimum", "maximum", ""),
    ("minLength", "maxLength", " characters"),
    ("minItems", "maxItems", " items"),
)
_MAX_DEPTH = 4
"""The depth below which an example has empty lists, because a type may contain itself."""
_STORAGE_BOUND = 2**53
"""A bound from this number on only reflects how the value is stored: it is not shown."""


class LinkedText(NamedTuple):
    """A piece of text, and the object of the page to which it links, if any."""

    text: str
    object: str = ""


def describe_type(schema: JsonSchema) -> list[LinkedText]:
    """Return a description of the values that a schema takes."""
    limits = ", ".join(_describe_limits(schema))
    return [*_describe_kind(schema), *([LinkedText(f", {limits}")] if limits else [])]


def refs(schema: Any) -> Iterator[str]:
    """Yield the names of the components that a schema refers to."""
    if isinstance(schema, dict):
        if isinstance(name := schema.get("$ref"), str):
            yield name.rpartition("/")[2]
        for item in schema.values():
            yield from refs(item)
    elif isinstance(schema, list):
        for item in schema:
            yield from refs(item)


def example(schema: JsonSchema, schemas: JsonSchema, depth: int = 0) -> Any:
    """Return an example of a value.

    It is the schema's own example, if it has one. Otherwise an object has the required fields, and
    at the top also those with an example.
    """
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    if schema.get("examples"):
        return schema["examples"][0]
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return example(schema["anyOf"][0], schemas, depth)
    kind = schema.get("type")
    if kind == "object":
        return {
            name: example(field, schemas, depth + 1)
            for name, field in schema.get("properties", {}).items()
            if name in schema.get("required", []) or (field.get("examples") and depth == 0)
        }
    if kind == "array":
        items = schema.get("items")
        return [example(items, schemas, depth + 1)] if items and depth < _MAX_DEPTH else []
    plain = {"string": "…", "integer": schema.get("minimum", 1), "number": 1, "boolean": False}
    return plain.get(str(kind))


def _describe_kind(schema: JsonSchema) -> list[LinkedText]:
    """Return a description of the type without its bounds."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return [LinkedText(name, name)]
    if "enum" in schema:
        return [LinkedText(" or ".join(json.dumps(value) for value in schema["enum"]))]
    if "anyOf" in schema:
        joined: list[LinkedText] = []
        for option in schema["anyOf"]:
            if joined:
                joined.append(LinkedText(" or "))
            joined += describe_type(option)
        return joined
    kind = schema.get("type")
    if kind == "array" and schema.get("items"):
        items = schema["items"]
        if "anyOf" in items:
            return [LinkedText("list of ("), *describe_type(items), LinkedText(")")]
        return [LinkedText("list of "), *describe_type(items)]
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return [LinkedText("object of "), *describe_type(schema["additionalProperties"])]
    return [LinkedText(_TYPE_NAMES.get(str(kind), "anything"))]


def _bound(value: float | None) -> float | None:
    """Return a bound, or None for one that is not shown."""
    return None if value is None or abs(value) >= _STORAGE_BOUND else value


def _describe_limits(schema: JsonSchema) -> Iterator[str]:
    """Yield a description of each bound of a schema."""
    if "exclusiveMinimum" in schema:
        yield f"above {json.dumps(schema['exclusiveMinimum'])}"
    for lowest, highest, unit in _BOUNDS:
        low, high = (_bound(schema.get(name)) for name in (lowest, highest))
        if low is not None and high is not None:
            yield f"{json.dumps(low)} to {json.dumps(high)}{unit}"
        elif low is not None:
            yield f"at least {json.dumps(low)}{unit}" if low != 1 or not unit else "not empty"
        elif high is not None:
            yield f"at most {json.dumps(high)}{unit}"
