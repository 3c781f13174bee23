from __future__ import annotations

from typing import Any

import pytest

from llmd.engine.protocol import Tool
from llmd.errors import InvalidField
from llmd.worker.tool_schema import (
    closed,
    parameters_of,
    properties_of,
    resolved,
    type_of,
    types_of,
)


def test_schema_of_a_tool_is_read_from_its_text() -> None:
    """Parameters are JSON text, and a schema without properties has none."""
    schema = parameters_of(Tool(name="f", parameters='{"properties": {"a": {"type": "null"}}}'))
    assert properties_of(schema) == {"a": {"type": "null"}}
    assert properties_of(parameters_of(Tool(name="f"))) == {}
    assert properties_of({"properties": 5}) == {}


@pytest.mark.parametrize("text", ["", "[]", "true", "{", "[" * 100_000])
def test_parameters_that_are_not_an_object_are_refused(text: str) -> None:
    """Parameters that are not a JSON object are refused with the name of their tool."""
    with pytest.raises(InvalidField, match="the tool f ") as error:
        parameters_of(Tool(name="f", parameters=text))
    assert error.value.param == "tools"


@pytest.mark.parametrize(
    ("schema", "types"),
    [
        ({"type": "string", "enum": [1]}, {"string"}),
        ({"type": ["string", "null"]}, {"string", "null"}),
        ({"type": ["string", 5]}, {"string"}),
        ({"enum": ["a", None, 1, 1.5, True, [], {}]}, {
            "string", "null", "integer", "number", "boolean", "array", "object",
        }),
        ({"const": True}, {"boolean"}),
        ({"anyOf": [{"type": "string"}, {"const": None}]}, {"string", "null"}),
        ({"oneOf": [{"type": "string"}, {"$ref": "#/$defs/a"}]}, set()),
        ({"anyOf": []}, set()),
        ({"type": 5}, set()),
        ({}, set()),
        (True, set()),
    ],
)  # fmt: skip
def test_types_are_those_that_a_schema_declares(schema: Any, types: set[str]) -> None:
    """Types are declared by `type`, by `enum` or `const`, or by `anyOf` or `oneOf`."""
    assert types_of(schema) == types


def test_boolean_is_not_a_number() -> None:
    """True is a boolean, although Python counts it as the integer 1."""
    assert type_of(True) == "boolean"
    assert type_of(1) == "integer"


_OPEN = {"type": "object", "properties": {"a": {"type": "integer"}}}
_CLOSED = {**_OPEN, "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (_OPEN, _CLOSED),
        ({"properties": {}}, {"properties": {}, "additionalProperties": False}),
        ({"type": "array", "items": _OPEN}, {"type": "array", "items": _CLOSED}),
        ({"anyOf": [_OPEN, {"type": "null"}]}, {"anyOf": [_CLOSED, {"type": "null"}]}),
        ({"$defs": {"x": _OPEN}}, {"$defs": {"x": _CLOSED}}),
    ],
)
def test_objects_with_listed_properties_are_closed(schema: Any, expected: Any) -> None:
    """An object whose schema lists its properties has no others, at any depth."""
    assert closed(schema) == expected


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {**_OPEN, "additionalProperties": True},
        {**_OPEN, "additionalProperties": {"type": "string"}},
        {**_OPEN, "patternProperties": {"^x": {}}},
        {"allOf": [_OPEN, {"properties": {"b": {}}}]},
        {**_OPEN, "$ref": "#/$defs/x"},
        {"enum": [_OPEN]},
        True,
    ],
)
def test_objects_that_may_have_other_properties_stay_open(schema: Any) -> None:
    """An object stays open if its schema says so, or if other schemas add properties to it."""
    assert closed(schema) == schema


def test_local_references_are_followed() -> None:
    """A reference within the schema is followed; one that leads nowhere means any value."""
    root = {
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"type": "null"}, "c": {"$ref": "#/$defs/c"}}
    }
    assert resolved({"$ref": "#/$defs/a"}, root) == {"type": "null"}
    assert resolved({"$ref": "#/$defs/c"}, root) == {}
    assert resolved({"$ref": "#/$defs/x/y"}, root) is None
    assert resolved({"$ref": "http://x"}, root) == {"$ref": "http://x"}
