"""Parse the tool calls of an answer, in any of the known formats."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cached_property
from typing import Any, NoReturn

from llmd.engine.protocol import Tools
from llmd.worker.answer.reader import SPACE, JsonScanner, Reader, Waiting
from llmd.worker.syntax import ARGUMENTS_MARKER, CALL_ID_MARKER, CallFormat, Syntax
from llmd.worker.tool_schema import parameters_of, properties_of, type_of, types_of

FUNCTION_MARKER = "<function="
"""A call in the format `CallFormat.XML` may begin with this text, without its start marker."""

_PARAMETER_MARKER = "<parameter="
_PARAMETER_END = "</parameter>"
_FUNCTION_END = "</function>"

_NAME = re.compile(r'[^\s\[\]{}<>"]+')
_IN_TAG = re.compile(r"[^>\n]+")
_ID = re.compile(r"[^\[]+")
_SCALAR = re.compile(r'[^\s,{}\[\]"]+')
_SEPARATOR = re.compile(r"[\s;]+")

_ARGUMENTS_KEYS = {"arguments", "parameters"}
_OTHER_KEYS = {"id", "type"}


class NotACall(Exception):
    """The text read is not a call of one of the request's tools."""


class CallParser:
    """Parse calls, and report each one's name to `on_call` and its arguments to `on_arguments`.

    Both callbacks get the index of the call first. Only calls of the given tools are reported. A
    call begins when its name is certain and its arguments have begun. It is never taken back.
    """

    def __init__(
        self,
        reader: Reader,
        syntax: Syntax,
        tools: Tools,
        *,
        on_call: Callable[[int, str], None],
        on_arguments: Callable[[int, str], None],
    ) -> None:
        self._reader = reader
        self._syntax = syntax
        self._tools = tools
        self._names = {tool.name for tool in tools.tools}
        self._on_call = on_call
        self._on_arguments = on_arguments
        self.num_calls = 0
        self.is_begun = False

    def read(self, marker: str) -> Waiting[None]:
        """Read the call or calls behind a marker, and the white space behind them.

        Raise `NotACall` as soon as the text is not a call. The reader's consumed text is then the
        text that belongs to no call.
        """
        reader = self._reader
        self.is_begun = False
        if marker == FUNCTION_MARKER:
            yield from self._function()
        else:
            yield from reader.read_run(SPACE)
            first = yield from reader.peek()
            if first == "{":
                yield from self._object()
            elif first == "[":
                yield from self._json_list()
            elif first == "<":
                yield from self._expect(FUNCTION_MARKER)
                yield from self._function()
            else:
                yield from self._name_and_json()
        yield from reader.read_run(SPACE)
        closing = self._syntax.call_end_marker
        if closing and not (yield from reader.read_word(closing)) and reader.ends_within(closing):
            reader.take_all()
        yield from reader.read_run(
            _SEPARATOR if self._syntax.call_format is CallFormat.BARE_JSON else SPACE
        )
        reader.discard()

    def _json_list(self) -> Waiting[None]:
        reader = self._reader
        yield from self._expect("[")
        while True:
            yield from reader.read_run(SPACE)
            yield from self._object()
            yield from reader.read_run(SPACE)
            if not (yield from reader.read_word(",")):
                break
        yield from reader.read_word("]")

    def _object(self) -> Waiting[None]:
        """Read ``{"name": …, "arguments": …}``, in any order and with further members."""
        reader = self._reader
        self.is_begun = False
        name: str | None = None
        arguments: str | None = None
        more = yield from self._open_object()
        while more:
            key = yield from self._key()
            if self.is_begun:
                yield from self._value()
            elif key == "name":
                name = self._known_name((yield from self._string()))
            elif key in _ARGUMENTS_KEYS:
                if (yield from reader.peek()) != "{":
                    raise NotACall
                if name is None:
                    arguments = yield from self._value()
                else:
                    yield from self._stream(name)
            elif key in _OTHER_KEYS:
                yield from self._value()
            else:
                raise NotACall
            if name is not None and arguments is not None and not self.is_begun:
                self._begin(name)
                self._add_arguments(arguments)
            more = yield from self._close_member()
        if not self.is_begun:
            self._begin(self._known_name(name))
            self._add_arguments("{}")
        reader.discard()

    def _open_object(self) -> Waiting[bool]:
        """Read the opening brace of an object; return whether the object has members."""
        reader = self._reader
        yield from self._expect("{")
        yield from reader.read_run(SPACE)
        return not (yield from reader.read_word("}"))

    def _key(self) -> Waiting[str]:
        reader = self._reader
        yield from reader.read_run(SPACE)
        key = yield from self._string()
        yield from reader.read_run(SPACE)
        yield from self._expect(":")
        yield from reader.read_run(SPACE)
        return key

    def _close_member(self) -> Waiting[bool]:
        """Read the comma or brace behind a member; return whether another member follows."""
        yield from self._reader.read_run(SPACE)
        mark = yield from self._reader.read_word(",", "}")
        if not mark and not self.is_begun:
            raise NotACall
        # Small models sometimes forget the closing brace. Accept the call without it.
        return mark == ","

    def _name_and_json(self) -> Waiting[None]:
        reader = self._reader
        name = self._known_name((yield from reader.read_run(_NAME)))
        if (yield from reader.read_word(CALL_ID_MARKER)):
            yield from reader.read_run(_ID)
        yield from self._expect(ARGUMENTS_MARKER)
        yield from reader.read_run(SPACE)
        if (yield from reader.peek()) != "{":
            raise NotACall
        yield from self._stream(name)

    def _function(self) -> Waiting[None]:
        """Read the rest of a ``<function=``, which is a call only if it is complete."""
        reader = self._reader
        name = self._known_name((yield from self._tag()))
        properties = self._properties.get(name, {})
        arguments: dict[str, str] = {}
        while True:
            yield from reader.read_run(SPACE)
            mark = yield from reader.read_word(_PARAMETER_MARKER, _FUNCTION_END)
            if mark == _FUNCTION_END:
                break
            if not mark:
                raise NotACall
            key = yield from self._tag()
            text = yield from reader.read_until(_PARAMETER_END)
            if text is None:
                raise NotACall
            # One line end on either side belongs to the format, not to the value.
            text = text.removeprefix("\n").removesuffix("\n")
            arguments[key] = _to_json(text, properties.get(key))
        self._begin(name)
        members = [f"{_quoted(key)}: {value}" for key, value in arguments.items()]
        self._add_arguments(f"{{{', '.join(members)}}}")

    @cached_property
    def _properties(self) -> dict[str, dict[str, Any]]:
        return {tool.name: properties_of(parameters_of(tool)) for tool in self._tools.tools}

    def _tag(self) -> Waiting[str]:
        text = yield from self._reader.read_run(_IN_TAG)
        yield from self._expect(">")
        return text.strip()

    def _string(self) -> Waiting[str]:
        if (yield from self._reader.peek()) != '"':
            raise NotACall
        text = yield from self._value()
        try:
            return str(json.loads(text, strict=False))
        except ValueError:
            raise NotACall from None

    def _value(self) -> Waiting[str]:
        """Read a JSON value and return its text."""
        first = yield from self._reader.peek()
        if not first or first not in '"{[':
            text = yield from self._reader.read_run(_SCALAR)
            return text or _fail()
        scanner = JsonScanner()
        pieces: list[str] = []
        while not scanner.is_closed:
            piece = yield from self._reader.read_json(scanner)
            pieces.append(piece or _fail())
        return "".join(pieces)

    def _stream(self, name: str) -> Waiting[None]:
        """Begin a call and read its arguments, an object."""
        self._begin(name)
        scanner = JsonScanner()
        while not scanner.is_closed and (piece := (yield from self._reader.read_json(scanner))):
            self._add_arguments(piece)

    def _expect(self, word: str) -> Waiting[None]:
        if not (yield from self._reader.read_word(word)):
            raise NotACall

    def _known_name(self, name: str | None) -> str:
        """Return the name of a tool. Raise `NotACall` if no tool has this name."""
        return name if name in self._names and name is not None else _fail()

    def _begin(self, name: str) -> None:
        self._on_call(self.num_calls, name)
        self.num_calls += 1
        self.is_begun = True

    def _add_arguments(self, arguments: str) -> None:
        self._on_arguments(self.num_calls - 1, arguments)
        self._reader.discard()


def _fail() -> NoReturn:
    raise NotACall


def _to_json(text: str, schema: Any) -> str:
    """Return a value that was written as plain text as JSON, as its schema declares it."""
    types = types_of(schema)
    try:
        value = json.loads(text, parse_constant=lambda _: _fail())
    except (ValueError, RecursionError, NotACall):
        return _quoted(text)
    if "string" not in types:
        return text.strip()
    admits = type_of(value) in types or (isinstance(value, int) and "number" in types)
    return text.strip() if admits and not isinstance(value, str) else _quoted(text)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
