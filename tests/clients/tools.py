"""Two functions for models to call. Their arguments are always short."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
from openai.types.chat import ChatCompletionFunctionToolParam

Schema = dict[str, Any]

WEATHER = "get_weather"
LAMP = "switch_lamp"

SCHEMAS: dict[str, Schema] = {
    WEATHER: {
        "type": "object",
        "properties": {
            "city": {"type": "string", "enum": ["Paris", "Rome", "Oslo"]},
            "days": {"type": "integer", "minimum": 1, "maximum": 9},
        },
        "required": ["city", "days"],
        "additionalProperties": False,
    },
    LAMP: {
        "type": "object",
        "properties": {
            "room": {"type": "string", "enum": ["kitchen", "hall"]},
            "on": {"type": "boolean"},
        },
        "required": ["room", "on"],
        "additionalProperties": False,
    },
}
DESCRIPTIONS = {WEATHER: "Tell the weather of a city.", LAMP: "Switch a lamp on or off."}

QUESTION = "What will the weather be in Paris tomorrow?"

TOOLS: list[ChatCompletionFunctionToolParam] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": DESCRIPTIONS[name],
            "parameters": dict(schema),
        },
    }
    for name, schema in SCHEMAS.items()
]


def check_arguments(name: str, arguments: str) -> Any:
    """Return the arguments of a call, which must be JSON that follows the function's schema."""
    value = json.loads(arguments)
    jsonschema_rs.validate(SCHEMAS[name], value)
    return value
