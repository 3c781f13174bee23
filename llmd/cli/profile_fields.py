"""The fields of a profile as users write them: FIELD=VALUE, or a file with a JSON object."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from msgspec import inspect

from llmd.errors import ImportRefused, InvalidField

if TYPE_CHECKING:
    from llmd.store.profiles import Profile

_MAX_FILE_BYTES = 16_777_216
# msgspec puts the path of the field behind its message.
_MESSAGE_AND_FIELD = re.compile(r"^(.*) - at `\$\.(\S+)`$", re.DOTALL)


def fields_of(profile: Profile) -> dict[str, Any]:
    """Return the fields of a profile as JSON values."""
    fields: dict[str, Any] = msgspec.to_builtins(profile)
    return fields


def parse_setting(text: str) -> tuple[str, Any]:
    """Parse FIELD=VALUE.

    Raise `UsageError` if "=" is missing, `InvalidField` for an unknown field.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"{text!r} is not FIELD=VALUE")
    require_known([name])
    return name, _value(name, value)


def read_object(file: Path) -> dict[str, Any]:
    """Read the fields in a JSON file.

    Raise `ImportRefused` if it does not hold an object, `InvalidField` for an unknown field.
    """
    with file.open("rb") as opened:
        content = opened.read(_MAX_FILE_BYTES)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ImportRefused(f"{file} must be JSON: {error}") from error
    if not isinstance(value, dict):
        raise ImportRefused(f"{file} must hold a JSON object with the fields of a profile")
    require_known(value)
    return value


def require_known(names: list[str] | dict[str, Any]) -> None:
    """Raise `InvalidField` for a name that no field of a profile has."""
    known = [field.name for field in _fields()]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            right = f"did you mean {near[0]}?" if near else f"use one of {', '.join(known)}"
            raise InvalidField(f"a profile has no field {name[:80]!r}: {right}", param=name)


def make_profile(fields: dict[str, Any]) -> Profile:
    """Return a profile with these fields. Raise `InvalidField`, which names the field first."""
    from llmd.store.profiles import read_profile

    try:
        return read_profile(fields)
    except InvalidField as error:
        found = _MESSAGE_AND_FIELD.match(error.message)
        message = f"{found[2]}: {found[1]}" if found else error.message
        raise InvalidField(message, param=error.param) from error


def _fields() -> tuple[msgspec.structs.FieldInfo, ...]:
    from llmd.store.profiles import Profile

    return msgspec.structs.fields(Profile)


def _value(name: str, text: str) -> Any:
    """Parse a value by the type of its field. A wrong one fails later, in `make_profile`."""
    info = inspect.type_info(next(field.type for field in _fields() if field.name == name))
    kinds = info.types if isinstance(info, inspect.UnionType) else (info,)
    is_optional = any(isinstance(kind, inspect.NoneType) for kind in kinds)
    if is_optional and text == "null":
        return None
    if any(isinstance(kind, inspect.StrType) for kind in kinds):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    # A single text stands for a list of one.
    is_list = any(isinstance(kind, inspect.VarTupleType) for kind in kinds)
    return [text] if is_list and not isinstance(value, list) else value
