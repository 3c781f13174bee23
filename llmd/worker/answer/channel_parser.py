"""Separate an answer that consists of several messages, each with a header of its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

from llmd.worker.answer.call_parser import CallParser
from llmd.worker.answer.reader import SPACE, Reader, Waiting
from llmd.worker.answer.values import NotACall, fail
from llmd.worker.markers import first_marker
from llmd.worker.syntax import Channels

_Use = Literal["text", "thought", "call", "arguments", "nobody"]


class ChannelParser:
    """Reads messages: thoughts, content, and calls, by what their headers say."""

    def __init__(
        self,
        reader: Reader,
        channels: Channels,
        calls: CallParser | None,
        release: Callable[[Any], None],
    ) -> None:
        self._reader = reader
        self._channels = channels
        self._calls = calls
        self._release = release
        self._ends = [*channels.ends, channels.start]
        self._channel = first_marker(channels.content_header)
        key, equals, _ = (channels.recipient or channels.content_header).strip().partition("=")
        self._to = f"{key}{equals}" if equals else channels.recipient
        self._thought_words = set(channels.thought_header.split()) - set(
            channels.content_header.split()
        )

    def read(self, within: _Use | None = None) -> Waiting[None]:
        """Read all messages of an answer that begins inside of a header.

        If `within` is given, it begins inside of the body of a message of that use.
        """
        reader = self._reader
        if within is not None:
            yield from self._body(within)
        begins = [word for word in (self._channel, self._to, self._channels.message) if word]
        while (yield from reader.peek()):
            yield from reader.read_run(SPACE)
            if (yield from reader.read_word(self._channels.start)):
                continue
            begin = yield from reader.read_word(*begins)
            if not begin and any(reader.ends_within(word) for word in begins):
                reader.discard()
                reader.take_all()
                reader.discard()
                return
            if not begin:
                # A message without a header, as an answer in a prescribed form has none.
                yield from self._body("text")
                continue
            if begin == self._channels.message:
                header = ""
            else:
                found = yield from reader.read_until(self._channels.message)
                if found is None:
                    # The answer ends inside of a header.
                    reader.discard()
                    return
                header = begin + found[0]
            reader.discard()
            yield from self._message(header)

    def _message(self, header: str) -> Waiting[None]:
        if self._calls is not None and (name := self._called(header)):
            try:
                if self._channels.has_body_call:
                    yield from self._reader.read_run(SPACE)
                    word = yield from self._reader.read_word(*self._calls.markers)
                    yield from self._calls.read(word or fail())
                else:
                    yield from self._calls.read_arguments(name)
            except NotACall:
                if self._reader.is_at_end:
                    self._reader.discard()
                yield from self._body("text")
                return
            yield from self._body("nobody")
            return
        yield from self._body(self._use(header))

    def _called(self, header: str) -> str:
        """Return the name of the tool that a header names, or ""."""
        at = header.find(self._channels.recipient) if self._channels.recipient else -1
        if at < 0 or self._calls is None:
            return ""
        rest = header[at + len(self._channels.recipient) :]
        name = re.split(r"[\s<]", rest, maxsplit=1)[0]
        return name if name in self._calls.names else ""

    def _use(self, header: str) -> _Use:
        """Return what a message without a known recipient is."""
        parts = header.split(self._channel) if self._channel else [header]
        words = set(parts[-1].split())
        if self._thought_words & words or (
            self._channel and self._thought_words & {f"{self._channel}{word}" for word in words}
        ):
            return "thought"
        own = {word for word in self._channels.content_header.split() if self._to in word}
        others = [*parts[0].split(), *parts[-1].split()]
        if self._to and any(word.startswith(self._to) and word not in own for word in others):
            return "nobody"
        return "text"

    def _body(self, use: _Use) -> Waiting[None]:
        """Read the body of a message and the marker that ends it.

        Where calls have no channel of their own, text may contain some in the general form.
        """
        reader, calls = self._reader, self._calls
        has_calls = use == "text" and calls is not None and not self._channels.recipient
        markers = set(calls.markers) if has_calls and calls is not None else set()
        words = sorted({*self._ends, *markers})
        firsts = re.escape("".join({word[0] for word in words}))
        inner = re.compile(f"[^{firsts}]+")
        while (yield from reader.peek()):
            if not reader.take(inner):
                word = yield from reader.read_word(*words)
                if word in self._ends:
                    reader.discard()
                    return
                if word and calls is not None:
                    try:
                        yield from calls.read(word)
                    except NotACall:
                        if reader.is_at_end:
                            reader.discard()
                    else:
                        continue
                elif not word:
                    reader.take_one()
            if use == "nobody":
                reader.discard()
            else:
                self._release(use)
