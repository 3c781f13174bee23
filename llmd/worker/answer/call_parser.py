"""Parse the tool calls of an answer, in the form that a syntax describes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cached_property
from typing import Any

from llmd.engine.protocol import Tools
from llmd.worker.answer.argument_parser import ArgumentParser, ends_of
from llmd.worker.answer.reader import SPACE, JsonScanner, Reader, Waiting
from llmd.worker.answer.values import NotACall, fail
from llmd.worker.syntax import SLOT, ArgumentForm, CallForm, Calls, Syntax, pieces_of
from llmd.worker.tool_schema import parameters_of, properties_of

_SCALAR = re.compile(r'[^\s,{}\[\]"]+')
_SEPARATOR = re.compile(r"[\s;]+")
_NAME_CHAR = re.compile(r"[\w.-]")
_MARKER_LIKE = re.compile(r"[<\[{|>]")

_ARGUMENTS_MARKER = "[ARGS]"
"""Marker between name and arguments in Mistral's later models."""

_NAME_KEYS = {"name"}
_ARGUMENTS_KEYS = {"arguments", "parameters"}
_OTHER_KEYS = {"id", "type"}
_MAX_WRAPPERS = 3


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
        self._arguments = ArgumentParser(reader)
        self._forms = (syntax.calls, *syntax.other_calls)
        self._calls = syntax.calls
        self._tools = tools
        self.names = [tool.name for tool in tools.tools]
        self._on_call = on_call
        self._on_arguments = on_arguments
        self._name_keys = _NAME_KEYS | {form.name_key for form in self._forms}
        self._arguments_keys = _ARGUMENTS_KEYS | {form.arguments_key for form in self._forms}
        self._other_keys = _OTHER_KEYS | {form.id_key for form in self._forms}
        self._ends = ends_of(self._calls)
        self.markers = self._find_markers()
        """The words that a call may begin with, and the pieces of its marker behind each."""
        self.num_calls = 0
        self.is_begun = False
        self.is_named = False
        """Whether a name of a tool has been read, so that this is a call even if it is cut off."""

    def _find_markers(self) -> dict[str, tuple[Calls, list[str]]]:
        markers: dict[str, tuple[Calls, list[str]]] = {}
        for form in self._forms:
            pieces = pieces_of(form.section_start) + pieces_of(form.start)
            first_of_start = len(pieces_of(form.section_start))
            for index, piece in enumerate(pieces):
                if piece == SLOT or (index and pieces[index - 1] == SLOT):
                    continue
                # A model may leave out the first markers, but a mere word is no sign of a call.
                if index in {0, first_of_start} or _MARKER_LIKE.search(piece):
                    markers.setdefault(piece, (form, pieces[index + 1 :]))
        return markers

    def read(self, marker: str) -> Waiting[None]:
        """Read the call or calls behind a marker, and the white space behind them.

        Raise `NotACall` as soon as the text is not a call. The reader's consumed text is then the
        text that belongs to no call.
        """
        reader = self._reader
        self.is_begun = self.is_named = False
        self._calls, pieces = self.markers.get(marker, (self._forms[0], []))
        self._ends = ends_of(self._calls)
        yield from self._arguments.pieces(pieces)
        yield from reader.read_run(SPACE)
        while True:
            first = yield from reader.peek()
            if first == "{":
                yield from self._object()
            elif first == "[":
                yield from self._json_list()
            elif self._calls.form is CallForm.NAMED:
                yield from self._named(pieces_of(self._calls.name_end))
            else:
                # Some models write the later form of their family, whatever their template has.
                yield from self._named([_ARGUMENTS_MARKER])
            if not (yield from self._close()):
                break
        reader.discard()

    def read_arguments(self, name: str) -> Waiting[None]:
        """Read arguments, a JSON object, of a call whose name has been read elsewhere."""
        self.is_begun, self.is_named = False, True
        yield from self._reader.read_run(SPACE)
        if (yield from self._reader.peek()) != "{":
            fail()
        yield from self._stream(name)

    def _close(self) -> Waiting[bool]:
        """Read the end of a call; return whether another call follows without a start marker."""
        reader, calls = self._reader, self._calls
        follows = False
        while True:
            yield from reader.read_run(_SEPARATOR if calls.is_bare else SPACE)
            if self._ends and (yield from reader.read_word(*self._ends)):
                continue
            if any(reader.ends_within(end) for end in self._ends):
                reader.take_all()
            separator = calls.separator.strip()
            if separator and not calls.is_bare and (yield from reader.read_word(separator)):
                follows = calls.form is CallForm.NAMED and not pieces_of(calls.start)
                continue
            break
        if follows:
            return True
        first = yield from reader.peek()
        return bool(first == "{" and calls.section_start.strip() and not calls.start.strip())

    # Calls that are JSON objects

    def _json_list(self) -> Waiting[None]:
        reader = self._reader
        yield from self._arguments.expect("[")
        while True:
            yield from reader.read_run(SPACE)
            yield from self._object()
            yield from reader.read_run(SPACE)
            if not (yield from reader.read_word(",")):
                break
        yield from reader.read_word("]")

    def _object(self, depth: int = 0) -> Waiting[None]:
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
            elif self._calls.form is CallForm.KEYED and key in self.names:
                name = self._known_name(key)
                if (yield from reader.peek()) != "{":
                    raise NotACall
                yield from self._stream(name)
            elif key in self._name_keys:
                name = self._known_name((yield from self._string()))
            elif key in self._arguments_keys:
                if (yield from reader.peek()) != "{":
                    raise NotACall
                if name is None:
                    arguments = yield from self._value()
                else:
                    yield from self._stream(name)
            elif key == "function" and (yield from reader.peek()) == "{":
                if depth >= _MAX_WRAPPERS:
                    raise NotACall
                yield from self._object(depth + 1)
                self.is_begun = True
            elif key in self._other_keys:
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
        yield from self._arguments.expect("{")
        yield from reader.read_run(SPACE)
        return not (yield from reader.read_word("}"))

    def _key(self) -> Waiting[str]:
        reader = self._reader
        yield from reader.read_run(SPACE)
        key = yield from self._string()
        yield from reader.read_run(SPACE)
        yield from self._arguments.expect(":")
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
            return text or fail()
        scanner = JsonScanner()
        pieces: list[str] = []
        while not scanner.is_closed:
            piece = yield from self._reader.read_json(scanner)
            pieces.append(piece or fail())
        return "".join(pieces)

    def _stream(self, name: str) -> Waiting[None]:
        """Begin a call and read its arguments, an object."""
        self._begin(name)
        scanner = JsonScanner()
        while not scanner.is_closed and (piece := (yield from self._reader.read_json(scanner))):
            self._add_arguments(piece)

    # Calls whose name stands between markers

    def _named(self, pieces: list[str]) -> Waiting[None]:
        reader, calls = self._reader, self._calls
        self.is_begun = False
        name = yield from reader.read_word(*self.names)
        if not name:
            if any(reader.ends_within(known) for known in self.names):
                reader.take_all()
            fail()
        self.is_named = True
        following = yield from reader.peek()
        if _NAME_CHAR.match(following) and not (pieces and pieces[0][0] == following):
            self.is_named = False
            fail()
        if SLOT in pieces:
            # The slot with what stands before it may be missing.
            behind = pieces[pieces.index(SLOT) + 1 :]
            if behind and (yield from reader.read_word(behind[0])):
                pieces = behind[1:]
        yield from self._arguments.pieces(pieces)
        if calls.arguments is ArgumentForm.JSON:
            yield from reader.read_run(SPACE)
            if (yield from reader.peek()) != "{":
                raise NotACall
            yield from self._stream(name)
        else:
            properties = self._properties.get(name, {})
            arguments = yield from self._arguments.read(calls, properties)
            self._begin(name)
            self._add_arguments(arguments)

    @cached_property
    def _properties(self) -> dict[str, dict[str, Any]]:
        return {tool.name: properties_of(parameters_of(tool)) for tool in self._tools.tools}

    def _known_name(self, name: str | None) -> str:
        """Return the name of a tool. Raise `NotACall` if no tool has this name."""
        if name is None or name not in self.names:
            fail()
        self.is_named = True
        return name

    def _begin(self, name: str) -> None:
        self._on_call(self.num_calls, name)
        self.num_calls += 1
        self.is_begun = True

    def _add_arguments(self, arguments: str) -> None:
        self._on_arguments(self.num_calls - 1, arguments)
        self._reader.discard()
