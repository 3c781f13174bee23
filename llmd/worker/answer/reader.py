"""Read a text that arrives in pieces, by generators that ``yield`` to wait for more text."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import TypeVar

_T = TypeVar("_T")
Waiting = Generator[None, None, _T]
"""A generator that yields whenever it needs more text, and then returns a value."""

SPACE = re.compile(r"\s+")

_STRUCTURE = re.compile(r'["{}\[\]]')
_IN_STRING = re.compile(r'["\\]')


class Reader:
    """A text that is read from beginning to end while pieces are added to it.

    The text read is remembered until `discard`, in case it turns out to be ordinary text. Each
    character is examined only a few times, however the text is split into pieces.
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
        """Mark the text as complete: no further piece follows."""
        self._is_ended = True

    @property
    def is_at_end(self) -> bool:
        """Whether the text is complete and has been read to its end."""
        return self._is_ended and self._at == len(self._text)

    def ends_within(self, word: str) -> bool:
        """Return whether the complete text ends here, before or inside the given word."""
        return self._is_ended and word.startswith(self._text[self._at :])

    @property
    def rest(self) -> str:
        """The text received so far that has not been read."""
        return self._text[self._at :]

    @property
    def consumed(self) -> str:
        """The text read since the last `discard`."""
        return "".join(self._consumed)

    def discard(self) -> None:
        """Drop the text in `consumed`."""
        self._consumed.clear()

    def peek(self) -> Waiting[str]:
        """Return the next character without reading it, or "" at the end."""
        while self._at == len(self._text):
            if self._is_ended:
                return ""
            yield
        return self._text[self._at]

    def take(self, pattern: re.Pattern[str]) -> str:
        """Read what the pattern matches in the text received so far, without waiting for more."""
        match = pattern.match(self._text, self._at)
        return self._advance(match.end()) if match else ""

    def take_one(self) -> str:
        """Read one character of the text received so far."""
        return self._advance(self._at + 1)

    def take_all(self) -> str:
        """Read all the text received so far."""
        return self._advance(len(self._text))

    def read_run(self, pattern: re.Pattern[str]) -> Waiting[str]:
        """Read as far as a pattern matches, which must be a repeated character class."""
        pieces: list[str] = []
        while (yield from self.peek()) and (piece := self.take(pattern)):
            pieces.append(piece)
        return "".join(pieces)

    def read_word(self, *words: str) -> Waiting[str]:
        """Read and return the longest of the words that follows, or return ""."""
        while True:
            best = max((word for word in words if self._starts_with(word)), key=len, default="")
            rest = self._text[self._at : self._at + max(map(len, words), default=0)]
            if self._is_ended or not any(
                len(word) > len(rest) and word.startswith(rest) for word in words
            ):
                return self._advance(self._at + len(best)) if best else ""
            yield

    def read_until(self, *words: str) -> Waiting[tuple[str, str] | None]:
        """Read up to and including one of the words; return (text before it, word).

        Return None if none follows.
        """
        firsts = re.escape("".join({word[0] for word in words}))
        other = re.compile(f"[^{firsts}]+")
        pieces: list[str] = []
        while True:
            pieces.append((yield from self.read_run(other)))
            if not (yield from self.peek()):
                return None
            if word := (yield from self.read_word(*words)):
                return "".join(pieces), word
            pieces.append(self.take_one())

    def read_json(self, scanner: JsonScanner) -> Waiting[str]:
        """Read a piece of a JSON value, at most to the value's end; return "" at the text's end."""
        if not (yield from self.peek()):
            return ""
        return self._advance(scanner.find_end(self._text, self._at))

    def rewind(self) -> None:
        """Put the text in `consumed` back, to read it again."""
        self._text = self.consumed + self._text[self._at :]
        self._at = 0
        self._consumed.clear()

    def _starts_with(self, word: str) -> bool:
        return bool(word) and self._text.startswith(word, self._at)

    def _advance(self, end: int) -> str:
        text = self._text[self._at : end]
        self._at = end
        self._consumed.append(text)
        return text


class JsonScanner:
    """Find the end of a JSON string, array or object that arrives in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._is_escaped = False
        self.is_closed = False

    def find_end(self, text: str, at: int) -> int:
        """Return the index behind the value that continues at `at`, at most the text's length."""
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
