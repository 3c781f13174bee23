"""Read values as types of msgspec. Every type is prepared in the main thread, before any request.

At the first use of a struct, msgspec makes a description of its fields and keeps it at the class.
It does so in steps, with Python code in between, and stores the description at the class before it
is complete, so that a struct can contain itself. A second thread that uses the same struct at this
moment reads a null pointer, and the process dies of SIGSEGV. (msgspec 0.22, `StructInfo_Convert` in
`_core.c`; the same holds for data classes and typed dictionaries.)

A `Codec` makes the descriptions of its type and of all types within it when it is created, which
is possible in the main thread only. Modules create their codecs when they are imported. ruff.toml
forbids the functions of msgspec that would take a type at a later time.
"""

from __future__ import annotations

import threading
from typing import Any, Generic, TypeVar, cast

import msgspec

T = TypeVar("T")


class Codec(Generic[T]):
    """Reads values of one type, from JSON, from msgpack, or from Python's own types. Thread-safe.

    Its methods raise `msgspec.ValidationError` for a value of another type, and
    `msgspec.DecodeError` for bytes that are not JSON or msgpack at all.
    """

    def __init__(self, type_: Any) -> None:
        """Prepare a type. Raise `RuntimeError` outside of the main thread."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(f"the codec of {type_} must be created in the main thread")
        self._type = type_
        self._json: msgspec.json.Decoder[T] = msgspec.json.Decoder(type_)
        self._msgpack: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(type_)

    def convert(self, value: object, *, from_attributes: bool = False) -> T:
        """Return a value that consists of dicts, lists and scalars as the type.

        With `from_attributes`, the fields may be attributes of an object as well.
        """
        converted = msgspec.convert(value, self._type, from_attributes=from_attributes)
        return cast("T", converted)

    def decode_json(self, raw: bytes | str) -> T:
        """Return the value that JSON describes."""
        return self._json.decode(raw)

    def decode_msgpack(self, raw: bytes) -> T:
        """Return the value that msgpack describes."""
        return self._msgpack.decode(raw)


_registered: dict[Any, Codec[Any]] = {}


def register(type_: Any) -> None:
    """Create the codec of a type for `codec_of`. Each description of a route does this."""
    if type_ not in _registered:
        _registered[type_] = Codec(type_)


def codec_of(type_: type[T]) -> Codec[T]:
    """Return the codec of a registered type. Raise `LookupError` for another type."""
    try:
        return _registered[type_]
    except KeyError:
        raise LookupError(
            f"{type_} is not registered: name it as the body of an Operation"
        ) from None
