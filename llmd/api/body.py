"""Read a request's body and parameters, and refuse all that is not plainly right."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn, TypeVar

import falcon
import msgspec
from msgspec import inspect

from llmd.errors import InvalidField, MalformedBody, printable

T = TypeVar("T")

MAX_DEPTH = 32


def read(req: falcon.Request, type_: type[T], *, empty: T | None = None) -> T:
    """Return the body as `type_`, whatever its Content-Type says; `empty` stands for none at all.

    Raise `MalformedBody` for what is not strict JSON, and `InvalidField` for a field that is
    unknown, missing, of another type or out of range.
    """
    raw = read_raw(req)
    if empty is not None and not raw.strip():
        return empty
    return convert(parse(raw), type_)


def read_raw(req: falcon.Request) -> bytes:
    """Return the body as it came. Raise `MalformedBody` for one that is compressed."""
    if req.get_header("Content-Encoding"):
        raise MalformedBody("a compressed body is not read: send it as it is")
    raw: bytes = req.bounded_stream.read()
    return raw


def parse(raw: bytes) -> object:
    """Return what strict JSON says: no NaN, no duplicate names, no half characters, no NUL."""
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
        # Python reads no integer of more than 4,300 digits.
        raise MalformedBody("the body has a number with too many digits") from None
    for path, item in _strings(value, "", 0):
        _check_text(item, path)
    return value


def convert(value: object, type_: type[T]) -> T:
    """Return a parsed value as `type_`, or raise `InvalidField` that names the field."""
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        raise _refusal(str(error), type_) from None


_NO_CHOICE = re.compile(r"Invalid enum value (.*) - at `(\$.*)`", re.DOTALL)
_STEPS = re.compile(r"\.([^.\[]+)|\[([^\]]*)\]")


def _refusal(message: str, type_: object) -> InvalidField:
    """Return the error of a field, with the words that it may be if it is one of few."""
    match = _NO_CHOICE.fullmatch(message)
    words = _choices(type_, match[2]) if match else []
    if match is None or not words:
        return InvalidField.from_validation(message)
    name = printable(match[2].removeprefix("$."))
    return InvalidField(
        f"{name} must be one of {', '.join(words)}, not {printable(match[1])}", param=name
    )


def _choices(type_: object, path: str) -> list[str]:
    """Return the words that the field at a path such as ``$.a.b[0]`` may be; none for others."""
    kinds = [inspect.type_info(type_)]
    for step in _STEPS.finditer(path):
        kinds = [inner for kind in kinds for inner in _inner(kind, step[1])]
    values = [
        value
        for kind in _flat(kinds)
        if isinstance(kind, inspect.LiteralType)
        for value in kind.values
    ]
    return [str(value) for value in values]


def _flat(kinds: list[inspect.Type]) -> Iterator[inspect.Type]:
    for kind in kinds:
        if isinstance(kind, inspect.UnionType):
            yield from _flat(list(kind.types))
        elif isinstance(kind, inspect.Metadata):
            yield from _flat([kind.type])
        else:
            yield kind


def _inner(kind: inspect.Type, name: str | None) -> Iterator[inspect.Type]:
    """Yield what a field of this name may be, or an item when there is no name."""
    for outer in _flat([kind]):
        if isinstance(outer, inspect.StructType):
            yield from (field.type for field in outer.fields if field.encode_name == name)
        elif isinstance(outer, inspect.DictType):
            yield outer.value_type
        elif isinstance(outer, inspect.ListType) and name is None:
            yield outer.item_type


def limit_of(req: falcon.Request) -> int:
    """Return the parameter `limit` of a list, 100 when it is not given."""
    value = req.get_param("limit")
    if value is None:
        return 100
    if not re.fullmatch(r"[0-9]{1,4}", value) or not 1 <= int(value) <= 1000:
        raise InvalidField("limit must be a number from 1 to 1000", param="limit")
    return int(value)


def after_of(req: falcon.Request) -> str | None:
    """Return the parameter `after` of a list."""
    value: str | None = req.get_param("after")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, item in pairs:
        if name in value:
            raise MalformedBody(f"the body has the field {printable(name)} twice")
        value[name] = item
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedBody(f"{name} is not JSON: send a number or null")


def _strings(value: object, path: str, depth: int) -> Iterator[tuple[str, str]]:
    """Yield each string with its place. Raise `MalformedBody` beyond `MAX_DEPTH`."""
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
