"""Read the JSON schema of a tool's parameters."""

from __future__ import annotations

import json
from typing import Any

from llmd.engine.protocol import Tool
from llmd.errors import InvalidField


def parameters_of(tool: Tool) -> dict[str, Any]:
    """Return the schema of a tool's parameters. Raise `InvalidField` if it is no JSON object."""
    try:
        schema = json.loads(tool.parameters)
    except (ValueError, RecursionError):
        schema = None
    if not isinstance(schema, dict):
        raise InvalidField(
            f"the parameters of the tool {tool.name} are not a JSON object: give a JSON schema",
            param="tools",
        )
    return schema


def properties_of(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schemas of an object's properties by name, or {} if the schema has none."""
    properties = schema.get("properties")
    return properties if isinstance(properties, dict) else {}


def required_of(schema: dict[str, Any]) -> list[str]:
    """Return the names of the properties that an object must have."""
    required = schema.get("required")
    return required if isinstance(required, list) else []


_COMBINED = {"allOf", "anyOf", "oneOf", "$ref", "if", "patternProperties", "additionalProperties"}
_COMBINED |= {"unevaluatedProperties", "dependentSchemas"}
"""Keywords by which an object may get further properties than those that it lists."""


def closed(schema: Any) -> Any:
    """Return a schema whose objects have no properties but those listed, unless it says otherwise.

    A model that may invent properties does, and the tool then refuses them. llama.cpp's grammars
    of schemas do the same.
    """
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {
        word: value if word in {"allOf", "enum", "const", "default", "examples"} else closed(value)
        for word, value in schema.items()
    }
    is_object = isinstance(schema.get("properties"), dict) and schema.get("type") in {
        None,
        "object",
    }
    if is_object and not schema.keys() & _COMBINED:
        inner["additionalProperties"] = False
    return inner


def resolved(schema: Any, root: dict[str, Any]) -> Any:
    """Return the schema that a local ``$ref`` in a schema of `root` refers to, or the schema."""
    for _ in range(_MAX_REFERENCES):
        reference = schema.get("$ref") if isinstance(schema, dict) else None
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return schema
        schema = root
        for word in reference[2:].split("/"):
            schema = schema.get(word) if isinstance(schema, dict) else None
    return {}


_MAX_REFERENCES = 8
"""The number of references that are followed before they are taken for a circle."""


def types_of(schema: Any) -> set[str]:
    """Return the JSON types that a schema declares, or an empty set if it declares none."""
    if not isinstance(schema, dict):
        return set()
    declared = schema.get("type")
    if isinstance(declared, str):
        return {declared}
    if isinstance(declared, list):
        return {name for name in declared if isinstance(name, str)}
    if isinstance(schema.get("enum"), list):
        return {type_of(value) for value in schema["enum"]}
    if "const" in schema:
        return {type_of(schema["const"])}
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list):
            each = [types_of(choice) for choice in schema[word]]
            return set().union(*each) if all(each) else set()
    return set()


def type_of(value: Any) -> str:
    """Return the JSON type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    for kind, name in _TYPES.items():
        if isinstance(value, kind):
            return name
    return "object"


_TYPES = {int: "integer", float: "number", str: "string", list: "array"}
