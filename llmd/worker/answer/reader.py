"""Read a text that comes in pieces, by generators that wait for more of it by a ``yield``."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import TypeVar

_T = TypeVar("_T")
Waiting = Generator[None, None, _T]
"""What yields as often as it needs more text, and then returns a value."""

SPACE = re.compile(r"\s+")

_STRUCTURE = re.compile(r'["{}\[\]]')
_IN_STRING = re.compile(r'["\\]')


class Reader:
    """A text and how far it is read.

    What was read is kept until `discard`, for when it turns out to have been ordinary text. No
    character is looked at more than a few times, however the text is cut.
    """

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self._consumed: list[str] = []
        self._is_ended = False

    def feed(self, text: str) -> None:
        """Add a piece at the end."""
        self._text = self._text[self._at :] + text
        self._at = 0

    def end(self) -> None:
        """Let no further piece come."""
        self._is_ended = True

    @property
    def is_at_end(self) -> bool:
        """Whether all is read."""
        return self._is_ended and self._at == len(self._text)

    def ends_within(self, word: str) -> bool:
        """Tell whether the text ends, now and for good, in the midst of a word or before it."""
        return self._is_ended and word.startswith(self._text[self._at :])

    @property
    def consumed(self) -> str:
        """What was read since the last `discard`."""
        return "".join(self._consumed)

    def discard(self) -> None:
        """Keep no longer what was read."""
        self._consumed.clear()

    def peek(self) -> Waiting[str]:
        """Return the next character, unread; nothing at the end."""
        while self._at == len(self._text):
            if self._is_ended:
                return ""
            yield
        return self._text[self._at]

    def take(self, pattern: re.Pattern[str]) -> str:
        """Read what the pattern matches of the text at hand, which may go on with more of it."""
        match = pattern.match(self._text, self._at)
        return self._advance(match.end()) if match else ""

    def take_one(self) -> str:
        """Read a character of the text at hand."""
        return self._advance(self._at + 1)

    def take_all(self) -> str:
        """Read the text at hand."""
        return self._advance(len(self._text))

    def read_run(self, pattern: re.Pattern[str]) -> Waiting[str]:
        """Read as far as a pattern goes that is a repeated character class."""
        pieces: list[str] = []
        while (yield from self.peek()) and (piece := self.take(pattern)):
            pieces.append(piece)
        return "".join(pieces)

    def read_word(self, *words: str) -> Waiting[str]:
        """Read one of the words, none of which begins another; nothing when none is there."""
        while True:
            for word in words:
                if self._text.startswith(word, self._at):
                    return self._advance(self._at + len(word))
            rest = self._text[self._at : self._at + max(map(len, words))]
            if self._is_ended or not any(word.startswith(rest) for word in words):
                return ""
            yield

    def read_until(self, word: str) -> Waiting[str | None]:
        """Read on to a word and over it; return what is before, or None when it does not come."""
        other = re.compile(f"[^{re.escape(word[0])}]+")
        pieces: list[str] = []
        while True:
            pieces.append((yield from self.read_run(other)))
            if not (yield from self.peek()):
                return None
            if (yield from self.read_word(word)):
                return "".join(pieces)
            pieces.append(self.take_one())

    def read_json(self, scanner: JsonScanner) -> Waiting[str]:
        """Read a piece of a JSON value, at most to its end; nothing at the end of the text."""
        if not (yield from self.peek()):
            return ""
        return self._advance(scanner.find_end(self._text, self._at))

    def _advance(self, end: int) -> str:
        text = self._text[self._at : end]
        self._at = end
        self._consumed.append(text)
        return text


class JsonScanner:
    """Where a piece of JSON text is in a value: a string, an array or an object."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._is_escaped = False
        self.is_closed = False

    def find_end(self, text: str, at: int) -> int:
        """Return where the value ends that goes on at `at`: at the end of the text, if later."""
        while at < len(text):
            if self._is_escaped:
                self._is_escaped = False
                at += 1
                continue
            match = (_IN_STRING if self._in_string else _STRUCTURE).search(text, at)
            if match is None:
                return len(text)
            at = match.end()
            self._step(match[0])
            if self.is_closed:
                return at
        return at

    def _step(self, char: str) -> None:
        if char == "\\":
            self._is_escaped = True
            return
        if char == '"':
            self._in_string = not self._in_string
        else:
            self._depth += 1 if char in "{[" else -1
        self.is_closed = self._depth <= 0 and not self._in_string
