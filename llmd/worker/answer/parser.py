"""Separate thoughts, text and tool calls of an answer while it is generated."""

from __future__ import annotations

import re
from itertools import groupby
from typing import Literal

from llmd.engine.protocol import CallDelta, Delta, Reasoning, Tools
from llmd.worker.answer.call_parser import CallParser
from llmd.worker.answer.channel_parser import ChannelParser
from llmd.worker.answer.reader import SPACE, Reader, Waiting
from llmd.worker.answer.values import NotACall
from llmd.worker.markers import is_marker, segments_of
from llmd.worker.syntax import Syntax

AnswerEvent = Delta | Reasoning | CallDelta

Kind = Literal["text", "thought", "call", "arguments"]

_NEWLINES = re.compile(r"\n+")


class AnswerParser:
    """Parse one answer, and return each piece as soon as it is certain what it is.

    The result does not depend on how the answer is split into pieces. With `tools`, calls of these
    tools are recognised; anything that only looks like a call stays text. A call that the end of
    the answer cuts off is dropped as far as it has not begun. If `is_thinking`, the prompt ends
    with an open thought. If `is_continued`, the answer goes on in the text or thought of an earlier
    message, so that nothing stands between the prompt and it.
    """

    def __init__(
        self,
        syntax: Syntax,
        *,
        request_id: int,
        tools: Tools | None,
        is_thinking: bool,
        is_continued: bool = False,
    ) -> None:
        self._syntax = syntax
        self._request_id = request_id
        self._reader = Reader()
        self._found: list[tuple[Kind, int, str]] = []
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
        if not is_continued:
            self._reader.feed(syntax.lead)
        self._has_text = is_continued and not is_thinking
        if syntax.channels is not None:
            channels = ChannelParser(self._reader, syntax.channels, self._calls, self._release)
            within: Kind = "thought" if is_thinking else "text"
            self._parsing = channels.read(within if is_continued else None)
        else:
            lead = "" if is_continued else syntax.thought_lead
            self._parsing = self._answer(lead, is_thinking=is_thinking)

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

    def _release(self, kind: Kind = "text") -> None:
        """Turn the reader's consumed text into text of the answer, or into a thought."""
        text = self._reader.consumed
        self._reader.discard()
        if text:
            self._has_text = self._has_text or (kind == "text" and not text.isspace())
            self._found.append((kind, 0, text))

    # The answer as a whole

    def _answer(self, lead: str, *, is_thinking: bool) -> Waiting[None]:
        if is_thinking:
            if lead:
                self._found.append(("thought", 0, lead))
            yield from self._thought()
        yield from self._body("text")

    def _body(self, kind: Kind) -> Waiting[None]:
        """Read text, calls and further thoughts to the end of the answer.

        White space is held back until it is clear whether a call follows, and dropped if one does.
        """
        reader, calls, syntax = self._reader, self._calls, self._syntax
        is_bare = calls is not None and syntax.calls.is_bare
        may_be_bare = is_bare and kind == "text"
        while True:
            if may_be_bare:
                yield from reader.read_run(SPACE)
                may_be_bare = (yield from reader.peek()) == "{"
            word = "" if may_be_bare else (yield from self._text(kind))
            if not word and not may_be_bare:
                self._release(kind)
                return
            if calls is not None and (may_be_bare or word in calls.markers):
                if (yield from self._call(calls, word, kind)):
                    may_be_bare = is_bare
                    continue
                may_be_bare = False
            elif word in self._thought_starts:
                reader.discard()
                yield from self._thought()
                may_be_bare = is_bare and not self._has_text
            elif word in self._turn_ends:
                yield from self._end_of_turn(word)
            else:
                if word == self._words[0] and syntax.content_start[-1:].isspace():
                    yield from reader.read_run(SPACE)
                reader.discard()

    def _call(self, calls: CallParser, word: str, kind: Kind) -> Waiting[bool]:
        """Read a call behind its marker; return False, with its text released, if it is none."""
        reader = self._reader
        try:
            yield from calls.read(word)
        except NotACall:
            is_cut = reader.is_at_end and (word or calls.is_named or calls.is_begun)
            if word in self._turn_ends and not is_cut:
                yield from self._end_of_turn(reader.consumed.strip())
            elif is_cut:
                # The answer ends inside of the call. What is not reported of it yet is no text.
                reader.discard()
            self._release(kind)
            return False
        return True

    def _end_of_turn(self, word: str) -> Waiting[None]:
        """Drop a marker that ends a turn, if nothing else follows; else it is text."""
        reader = self._reader
        longest = max(map(len, self._syntax.turn_end), default=0)
        text = word
        while len(text) <= longest + 1 and (yield from reader.peek()):
            text = f"{text}{reader.take_one()}"
        if reader.is_at_end and any(end.startswith(text.strip()) for end in self._syntax.turn_end):
            reader.discard()
        self._release()

    @property
    def _words(self) -> tuple[str, str]:
        """The markers around the content of an answer."""
        return self._syntax.content_start.strip(), self._syntax.content_end.strip()

    @property
    def _thought_starts(self) -> set[str]:
        start = self._syntax.thought_start.strip()
        return {start} if start else set()

    @property
    def _turn_ends(self) -> set[str]:
        return {segments_of(end)[0] for end in self._syntax.turn_end}

    def _marks(self) -> set[str]:
        """Return the markers that may follow here and are no text, besides those of calls."""
        syntax = self._syntax
        start, end = syntax.thought_start.strip(), syntax.thought_end.strip()
        marks = set(self._turn_ends)
        is_begin = not self._has_text and not self.has_calls
        if is_begin or "|" in syntax.content_start:
            marks |= {word for word in self._words if word}
        if is_begin:
            marks |= {mark for mark in (start, end, syntax.turn_start) if mark}
        elif self._words[1]:
            marks.add(self._words[1])
        if syntax.thinks_again:
            marks |= {start, end, segments_of(start)[0]}
        return marks

    def _text(self, kind: Kind) -> Waiting[str]:
        """Read text up to and including a marker; return the marker, or "" at the end."""
        reader = self._reader
        markers = set(self._calls.markers) if self._calls is not None else set()
        had_text: bool | None = None
        words: list[str] = []
        ordinary = SPACE
        while (yield from reader.peek()):
            if had_text is not self._has_text:
                had_text = self._has_text
                words = sorted(markers | self._marks())
                firsts = re.escape("".join({word[0] for word in words}))
                ordinary = re.compile(rf"[^\s{firsts}]+" if firsts else r"\S+")
            if reader.take(ordinary):
                self._release(kind)
            elif not reader.take(SPACE):
                word = (yield from reader.read_word(*words)) if words else ""
                if word:
                    return word
                if self._is_cut_marker():
                    reader.take_all()
                    reader.discard()
                    return ""
                reader.take_one()
                self._release(kind)
        return ""

    def _is_cut_marker(self) -> bool:
        """Return whether the answer ends within the marker of a call, behind a part of it."""
        if self._calls is None:
            return False
        rest = self._reader.rest
        return any(
            self._reader.ends_within(marker) and is_marker(segments_of(rest)[0])
            for marker in self._calls.markers
        )

    # Thoughts

    def _thought(self) -> Waiting[None]:
        """Read a thought behind its start marker, its end marker and the white space behind it.

        A call in a thought counts only if the thought has no end.
        """
        reader, syntax = self._reader, self._syntax
        ends = {syntax.thought_end.strip()}
        if is_marker(segments_of(self._words[0] or " ")[0]):
            ends.add(self._words[0])
        markers = set() if self._calls is None else {
            word for word in self._calls.markers if is_marker(segments_of(word)[0])
        }  # fmt: skip
        words = sorted(ends | markers)
        firsts = re.escape("".join({word[0] for word in words}))
        inner = re.compile(rf"[^\n{firsts}]+")
        yield from reader.read_run(_NEWLINES)
        reader.discard()
        start = syntax.thought_start.strip()
        if start and (yield from reader.read_word(start)):
            yield from reader.read_run(_NEWLINES)
            reader.discard()
        is_held = False
        while (yield from reader.peek()):
            if reader.take(inner):
                if not is_held:
                    self._release("thought")
            elif not reader.take(_NEWLINES):
                word = yield from reader.read_word(*words)
                if word in ends:
                    if is_held:
                        text = reader.consumed[: -len(word)].rstrip("\n")
                        self._found.append(("thought", 0, text))
                    reader.discard()
                    if word in self._words:
                        return
                    yield from reader.read_run(SPACE)
                    reader.discard()
                    return
                if word:
                    is_held = True
                else:
                    reader.take_one()
                    if not is_held:
                        self._release("thought")
        if is_held:
            reader.rewind()
            yield from self._body("thought")
        reader.discard()
