"""Error messages for sections, options and values of the configuration."""

from __future__ import annotations

import difflib
import math
from typing import Any

import msgspec
from msgspec import Struct, inspect

from llmd.codecs import Codec
from llmd.config.address import parse_address
from llmd.errors import ConfigError


def unknown_name(noun: str, name: str, known: dict[str, Any]) -> str:
    """Return the message that `name` is no known `noun`, with the nearest one or all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"unknown {noun}: did you mean {near[0]}?"
    return f"unknown {noun}: use one of {', '.join(known)}"


def option_error(section: type[Struct], key: str, value: object) -> str | None:
    """Return what is wrong with the value of an option, or None if it is right."""
    fields = {f.name: f.type for f in msgspec.structs.fields(section)}
    if key not in fields:
        return unknown_name("option", key, fields)
    try:
        Codec(fields[key]).convert(value)
        if key == "listen":
            for text in value:  # type: ignore[attr-defined]  # convert has seen a list of str
                parse_address(text)
    except msgspec.ValidationError:
        return f"must be {_allowed(inspect.type_info(fields[key]))}{_not_value(value)}"
    except ConfigError as error:
        return error.message
    if isinstance(value, float) and math.isnan(value):
        return f"must be {_allowed(inspect.type_info(fields[key]))}, not nan"
    return None


def _not_value(value: object) -> str:
    # Text stays out of the message: a database URL may contain a password.
    return f", not {str(value).lower()}" if isinstance(value, int | float) else ""


def _allowed(info: inspect.Type) -> str:
    """Return a description of the values that a type accepts."""
    match info:
        case inspect.Metadata(extra_json_schema={"description": str(description)}):
            return description
        case inspect.VarTupleType(item_type=inspect.Metadata() as item):
            return _allowed(item)
        case inspect.VarTupleType():
            return 'a list of at least one "host:port"'
        case inspect.IntType(ge=low, le=high):
            return f"a whole number from {low} to {high}"
        case inspect.FloatType(ge=low, le=high):
            return f"a number from {low} to {high}"
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(f'"{value}"' for value in values)
        case inspect.BoolType():
            return "true or false"
    raise AssertionError(f"an option has a type without a description: {info}")
