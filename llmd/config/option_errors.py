"""What an option may be, and what is wrong with a value, in words."""

from __future__ import annotations

import difflib
import math
from typing import Any

import msgspec
from msgspec import Struct, inspect

from llmd.config.address import parse_address
from llmd.errors import ConfigError


def unknown_name(noun: str, name: str, known: dict[str, Any]) -> str:
    """Say that `name` is no `noun`, and which it may be."""
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"unknown {noun}: did you mean {near[0]}?"
    return f"unknown {noun}: use one of {', '.join(known)}"


def option_error(section: type[Struct], key: str, value: object) -> str | None:
    """Say what is wrong with the value of an option, or return None."""
    fields = {f.name: f.type for f in msgspec.structs.fields(section)}
    if key not in fields:
        return unknown_name("option", key, fields)
    try:
        msgspec.convert(value, fields[key])
        if key == "listen":
            for text in value:  # type: ignore[attr-defined]  # convert has seen a list of str
                parse_address(text)
    except msgspec.ValidationError:
        return f"{_shown(value)}must be {_allowed(inspect.type_info(fields[key]))}"
    except ConfigError as error:
        return error.message
    if isinstance(value, float) and math.isnan(value):
        return f"must be {_allowed(inspect.type_info(fields[key]))}, not nan"
    return None


def _shown(value: object) -> str:
    # Text stays out of the message: a database URL may hold a password.
    return f"{value} is wrong: " if isinstance(value, int | float) else ""


def _allowed(info: inspect.Type) -> str:
    """Say in words what `info` lets in."""
    match info:
        case inspect.Metadata(extra_json_schema={"description": str(words)}):
            return words
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
    raise AssertionError(f"an option has a type without words: {info}")
