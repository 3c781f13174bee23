"""Read the body and the parameters of a request, and refuse those that are not valid."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn, TypeVar

import falcon
import msgspec
from msgspec import inspect

from llmd.codecs import codec_of
from llmd.errors import InvalidField, MalformedBody, printable

T = TypeVar("T")

MAX_DEPTH = 32
"""How deep objects and lists may be nested in a body."""


def read(req: falcon.Request, type_: type[T], *, empty: T | None = None) -> T:
    """Return the body as `type_`, whatever its Content-Type says.

    Return `empty`, if it is given, for an empty body. Raise `MalformedBody` for a body that is not
    strict JSON, and `InvalidField` for a field that is unknown, missing, of another type or out of
    range.
    """
    raw = read_raw(req)
    if empty is not None and not raw.strip():
        return empty
    return convert(parse(raw), type_)


def read_raw(req: falcon.Request) -> bytes:
    """Return the bytes of the body. Raise `MalformedBody` if it is compressed."""
    if req.get_header("Content-Encoding"):
        raise MalformedBody("a compressed body is not supported: send it uncompressed")
    raw: bytes = req.bounded_stream.read()
    return raw


def parse(raw: bytes) -> object:
    """Return the value of strict JSON: no NaN, duplicate name, lone surrogate or NUL."""
    if not raw.strip():
        raise MalformedBody('the body is empty: send JSON such as {"prompt": "…"}')
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedBody(f"the body is not UTF-8 at byte {error.start}") from None
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except RecursionError:
        raise MalformedBody(f"the body is nested deeper than {MAX_DEPTH} levels") from None
    except json.JSONDecodeError as error:
        raise MalformedBody(
            f"the body is not JSON: {error.msg.lower()} at line {error.lineno}, "
            f"column {error.colno}"
        ) from None
    except ValueError:
        # Python refuses to read an integer of more than 4,300 digits.
        raise MalformedBody("the body has a number with too many digits") from None
    for path, item in _strings(value, "", 0):
        _check_text(item, path)
    return value


def convert(value: object, type_: type[T]) -> T:
    """Return a parsed value as `type_`, which is the body of an `Operation`.

    Raise `InvalidField` with the name of the field.
    """
    try:
        return codec_of(type_).convert(value)
    except msgspec.ValidationError as error:
        raise _refusal(str(error), type_) from None


_NOT_A_CHOICE = re.compile(r"Invalid enum value (.*) - at `(\$.*)`", re.DOTALL)
"""Matches the message of msgspec for a string that is none of the values of a Literal."""

_STEP = re.compile(r"\.([^.\[]+)|\[([^\]]*)\]")
"""Matches a step of the path in such a message: a field's name, or an index in brackets."""


def _refusal(message: str, type_: object) -> InvalidField:
    """Return the error of a field. It lists the allowed values if the field is a Literal."""
    match = _NOT_A_CHOICE.fullmatch(message)
    choices = _choices(type_, match[2]) if match else []
    if match is None or not choices:
        return InvalidField.from_validation(message)
    name = printable(match[2].removeprefix("$."))
    return InvalidField(
        f"{name} must be one of {', '.join(choices)}, not {printable(match[1])}", param=name
    )


def _choices(type_: object, path: str) -> list[str]:
    """Return the values of a Literal at a path such as ``$.a.b[0]``, or none for other types."""
    types = [inspect.type_info(type_)]
    for step in _STEP.finditer(path):
        types = [inner for outer in types for inner in _inner_types(outer, step[1])]
    values = [
        value
        for member in _members(types)
        if isinstance(member, inspect.LiteralType)
        for value in member.values
    ]
    return [str(value) for value in values]


def _members(types: Iterable[inspect.Type]) -> Iterator[inspect.Type]:
    """Yield the types, with each union replaced by its members and without their metadata."""
    for type_ in types:
        if isinstance(type_, inspect.UnionType):
            yield from _members(type_.types)
        elif isinstance(type_, inspect.Metadata):
            yield from _members([type_.type])
        else:
            yield type_


def _inner_types(type_: inspect.Type, name: str | None) -> Iterator[inspect.Type]:
    """Yield the types of the field with this name, or of an item if `name` is None."""
    for outer in _members([type_]):
        if isinstance(outer, inspect.StructType):
            yield from (field.type for field in outer.fields if field.encode_name == name)
        elif isinstance(outer, inspect.DictType):
            yield outer.value_type
        elif isinstance(outer, inspect.ListType) and name is None:
            yield outer.item_type


def limit_of(req: falcon.Request) -> int:
    """Return the query parameter `limit` of a list, by default 100."""
    value = req.get_param("limit")
    if value is None:
        return 100
    if not re.fullmatch(r"[0-9]{1,4}", value) or not 1 <= int(value) <= 1000:
        raise InvalidField("limit must be a number from 1 to 1000", param="limit")
    return int(value)


def after_of(req: falcon.Request) -> str | None:
    """Return the query parameter `after` of a list."""
    value: str | None = req.get_param("after")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON. Raise `MalformedBody` for a name that it has twice."""
    value: dict[str, Any] = {}
    for name, item in pairs:
        if name in value:
            raise MalformedBody(f"the body has the field {printable(name)} twice")
        value[name] = item
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedBody(f"{name} is not JSON: send a number or null")


def _strings(value: object, path: str, depth: int) -> Iterator[tuple[str, str]]:
    """Yield each string with its path. Raise `MalformedBody` beyond `MAX_DEPTH`."""
    if depth > MAX_DEPTH:
        raise MalformedBody(f"the body is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield "a field's name", name
            yield from _strings(item, f"{path}.{name}" if path else name, depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _strings(item, f"{path}[{index}]", depth + 1)


def _check_text(text: str, path: str) -> None:
    """Raise `InvalidField` for a NUL, and `MalformedBody` for a lone surrogate."""
    if "\0" in text:
        raise InvalidField(
            f"{printable(path)} has a NUL character: leave it out", param=printable(path)
        )
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise MalformedBody(
                f"{printable(path)} has half of a surrogate pair at character {error.start}"
            ) from None
