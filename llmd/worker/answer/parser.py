"""Separate thoughts, text and tool calls of an answer while it is generated."""

from __future__ import annotations

import re
from itertools import groupby
from typing import Literal

from llmd.engine.protocol import CallDelta, Delta, Reasoning, Tools
from llmd.worker.answer.call_parser import FUNCTION_MARKER, CallParser, NotACall
from llmd.worker.answer.reader import SPACE, Reader, Waiting
from llmd.worker.syntax import CallFormat, Syntax

AnswerEvent = Delta | Reasoning | CallDelta

_Kind = Literal["text", "thought", "call", "arguments"]

_NEWLINES = re.compile(r"\n+")


class AnswerParser:
    """Parse one answer, and return each piece as soon as it is certain what it is.

    The result does not depend on how the answer is split into pieces. Thoughts are recognised only
    at the beginning of the answer. With `tools`, calls of these tools are recognised; anything that
    only looks like a call stays text. If `is_thinking`, the prompt ends with an open thought.
    """

    def __init__(
        self, syntax: Syntax, *, request_id: int, tools: Tools | None, is_thinking: bool
    ) -> None:
        self._syntax = syntax
        self._request_id = request_id
        self._reader = Reader()
        self._found: list[tuple[_Kind, int, str]] = []
        self._calls = (
            None
            if tools is None
            else CallParser(
                self._reader,
                syntax,
                tools,
                on_call=lambda index, name: self._found.append(("call", index, name)),
                on_arguments=lambda index, text: self._found.append(("arguments", index, text)),
            )
        )
        self._parsing = self._answer(is_thinking=is_thinking)

    @property
    def has_calls(self) -> bool:
        """Whether the answer contains a tool call."""
        return self._calls is not None and self._calls.num_calls > 0

    def push(self, text: str) -> list[AnswerEvent]:
        """Add text of the answer; return the events that are certain now."""
        self._reader.feed(text)
        next(self._parsing, None)
        return self._take()

    def finish(self) -> list[AnswerEvent]:
        """Return the events that were held back, at the end of the answer."""
        self._reader.end()
        next(self._parsing, None)
        return self._take()

    def _take(self) -> list[AnswerEvent]:
        """Return the events found so far, adjacent pieces of the same kind as one event."""
        events: list[AnswerEvent] = []
        for (kind, index), pieces in groupby(self._found, key=lambda piece: piece[:2]):
            text = "".join(piece[2] for piece in pieces)
            if kind == "text":
                events.append(Delta(self._request_id, text))
            elif kind == "thought":
                events.append(Reasoning(self._request_id, text))
            elif kind == "call":
                events.append(CallDelta(id=self._request_id, index=index, name=text))
            else:
                events.append(CallDelta(id=self._request_id, index=index, arguments=text))
        self._found.clear()
        return events

    def _release(self, kind: _Kind = "text") -> None:
        """Turn the reader's consumed text into text of the answer, or into a thought."""
        text = self._reader.consumed
        self._reader.discard()
        if text:
            self._found.append((kind, 0, text))

    def _answer(self, *, is_thinking: bool) -> Waiting[None]:
        reader = self._reader
        if self._syntax.thinks and not is_thinking:
            yield from reader.read_run(SPACE)
            is_thinking = bool((yield from reader.read_word(self._syntax.thought_start_marker)))
        if is_thinking:
            yield from self._thought()
        if self._calls is not None:
            yield from self._text_and_calls(self._calls)
        while (yield from reader.peek()):
            reader.take_all()
            self._release()
        self._release()

    def _thought(self) -> Waiting[None]:
        """Read a thought behind its start marker, its end marker and the white space behind it."""
        reader, closing = self._reader, self._syntax.thought_end_marker
        inner = re.compile(f"[^\n{re.escape(closing[0])}]+")
        yield from reader.read_run(_NEWLINES)
        reader.discard()
        while (yield from reader.peek()):
            if reader.take(inner):
                self._release("thought")
            elif not reader.take(_NEWLINES):
                if (yield from reader.read_word(closing)):
                    yield from reader.read_run(SPACE)
                    break
                reader.take_one()
                self._release("thought")
        reader.discard()

    def _text_and_calls(self, calls: CallParser) -> Waiting[None]:
        """Read text and calls to the end of the answer.

        White space is held back until it is clear whether a call follows, and dropped if one does.
        """
        reader = self._reader
        is_bare_json = may_be_bare_json = self._syntax.call_format is CallFormat.BARE_JSON
        while True:
            if may_be_bare_json:
                yield from reader.read_run(SPACE)
                may_be_bare_json = (yield from reader.peek()) == "{"
            marker = "" if may_be_bare_json else (yield from self._text())
            if not marker and not may_be_bare_json:
                return
            try:
                yield from calls.read(marker)
                may_be_bare_json = is_bare_json
            except NotACall:
                may_be_bare_json = False
                if calls.is_begun and reader.is_at_end:
                    # The answer was cut off behind the arguments of a call: drop the rest.
                    reader.discard()
                self._release()

    def _text(self) -> Waiting[str]:
        """Read text up to and including a marker of a call; return the marker, or "" at the end."""
        reader = self._reader
        markers = [self._syntax.call_start_marker]
        if self._syntax.call_format is CallFormat.XML:
            markers.append(FUNCTION_MARKER)
        firsts = "".join(re.escape(marker[0]) for marker in markers)
        ordinary = re.compile(rf"[^\s{firsts}]+")
        while (yield from reader.peek()):
            if reader.take(ordinary):
                self._release()
            elif not reader.take(SPACE):
                marker = yield from reader.read_word(*markers)
                if marker:
                    return marker
                reader.take_one()
                self._release()
        return ""
