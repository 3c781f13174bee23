"""Read the markers of calls, and arguments that are not written as one JSON object."""

from __future__ import annotations

import json
import re
from typing import Any

from llmd.worker.answer.reader import SPACE, Reader, Waiting
from llmd.worker.answer.values import (
    NotACall,
    PairReader,
    fail,
    joined,
    quoted,
    quotes_of,
    value_of,
    value_of_elements,
)
from llmd.worker.syntax import SLOT, ArgumentForm, Calls, pieces_of

_SLOT = re.compile(r'[^\s<>"\[\]{}]+')


class ArgumentParser:
    """Reads markers and arguments. Raises `NotACall` where the text has another form."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def pieces(self, pieces: list[str]) -> Waiting[None]:
        """Read the pieces of a marker, with white space between them."""
        index = 0
        while index < len(pieces):
            yield from self._reader.read_run(SPACE)
            if pieces[index] == SLOT:
                yield from self.slot(pieces[index + 1 : index + 2])
            else:
                yield from self.expect(pieces[index])
            index += 1

    def slot(self, following: list[str]) -> Waiting[str]:
        """Read the text in a slot: up to the piece behind it, if there is one."""
        if not following:
            return (yield from self._reader.read_run(_SLOT))
        first = re.escape(following[0][0])
        return (yield from self._reader.read_run(re.compile(rf"[^\n{first}]+")))

    def expect(self, word: str) -> Waiting[None]:
        """Read a word. Raise `NotACall` without it."""
        if not word:
            return
        if not (yield from self._reader.read_word(word)):
            if self._reader.ends_within(word):
                self._reader.take_all()
            raise NotACall

    def read(self, calls: Calls, properties: dict[str, Any]) -> Waiting[str]:
        """Read the arguments of a call that are not JSON; return them as a JSON object.

        `properties` are the schemas of the arguments by their name.
        """
        if calls.arguments is ArgumentForm.PAIRS:
            return (yield from self._pairs(calls))
        return joined((yield from self._members(calls, properties)))

    def _members(self, calls: Calls, properties: dict[str, Any]) -> Waiting[dict[str, str]]:
        """Read arguments with markers around each, up to the end of the call."""
        reader = self._reader
        begin, *rest = pieces_of(calls.argument_start)
        ends = pieces_of(calls.end)[:1] or ends_of(calls)[:1]
        separator = calls.argument_separator.strip()
        words = [word for word in (begin, separator, *ends) if word]
        members: dict[str, str] = {}
        while True:
            yield from reader.read_run(SPACE)
            mark = yield from reader.read_word(*words)
            if mark == begin:
                yield from self.pieces(rest)
                key, value = yield from self._member(calls, properties)
                members[key] = value
            elif not mark or mark != separator:
                break
        if not mark and ends:
            if any(reader.ends_within(word) for word in words):
                reader.take_all()
            fail()
        return members

    def _member(self, calls: Calls, properties: dict[str, Any]) -> Waiting[tuple[str, str]]:
        """Read the key and the value of an argument, and the marker that ends it."""
        reader = self._reader
        first, *pieces = pieces_of(calls.key_end)
        found = yield from reader.read_until(first, "\n")
        if found is None or found[1] == "\n":
            fail()
        key, kind = found[0].strip(), ""
        for index, piece in enumerate(pieces):
            yield from reader.read_run(SPACE)
            if piece == SLOT:
                kind = yield from self.slot(pieces[index + 1 : index + 2])
            else:
                yield from self.expect(piece)
        if calls.arguments is ArgumentForm.NESTED:
            raw = yield from self._element(calls, key)
            return key, value_of_elements(raw, properties.get(key), calls)
        closing = calls.value_end.strip()
        raw = ""
        while True:
            value = yield from reader.read_until(closing)
            if value is None:
                fail()
            raw += value[0]
            if not raw.lstrip().startswith("<![CDATA[") or raw.rstrip().endswith("]]>"):
                break
            raw += closing
        # One line end on either side belongs to the format if the template writes it.
        if calls.key_end.endswith("\n"):
            raw = raw.removeprefix("\n")
        if calls.value_end.startswith("\n"):
            raw = raw.removesuffix("\n")
        if kind and kind == calls.string_type:
            return key, quoted(raw)
        return key, value_of(raw, properties.get(key))

    def _element(self, calls: Calls, key: str) -> Waiting[str]:
        """Read the text of an element up to its end marker; elements inside may have its key."""
        opening = f"{calls.argument_start}{key}{calls.key_end}"
        closing = calls.value_end.replace(SLOT, key).strip()
        pieces: list[str] = []
        depth = 1
        while True:
            found = yield from self._reader.read_until(opening, closing)
            if found is None:
                fail()
            depth += 1 if found[1] == opening else -1
            pieces.append(found[0])
            if depth == 0:
                return "".join(pieces)
            pieces.append(found[1])

    def _pairs(self, calls: Calls) -> Waiting[str]:
        """Read pairs in brackets and return them as a JSON object."""
        reader = self._reader
        yield from self.expect(calls.arguments_start.strip())
        quotes = quotes_of(calls.quote)
        pieces: list[str] = []
        depth = 1
        while True:
            char = yield from reader.peek()
            if not char:
                fail()
            if quote := (yield from reader.read_word(*quotes)):
                pieces.append(quote)
                while True:
                    found = yield from reader.read_until(quote)
                    if found is None:
                        fail()
                    pieces += found
                    text = found[0]
                    escapes = len(text) - len(text.rstrip("\\")) if len(quote) == 1 else 0
                    if escapes % 2 == 0:
                        break
                continue
            char = reader.take_one()
            depth += (char in "([{") - (char in ")]}")
            if depth == 0:
                break
            pieces.append(char)
        try:
            pairs = PairReader("".join(pieces), calls.quote).pairs()
            return json.dumps(pairs, ensure_ascii=False)
        except RecursionError:
            fail()


def ends_of(calls: Calls) -> list[str]:
    """Return the pieces of all markers behind a call."""
    pieces = pieces_of(calls.end) + pieces_of(calls.section_end)
    return [piece for piece in dict.fromkeys(pieces) if piece != SLOT]
