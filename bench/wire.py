"""A parser of one HTTP/1.1 response and of the events in it, fed with bytes as they come.

An HTTP library would do more than necessary, and use more of the cores that are measured.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct


class CutOff(Exception):
    """A response that was cut off or is malformed."""


class Response:
    """The head of a response and the bytes of its body."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.is_complete = False
        self._buffer = b""
        self._is_chunked = False
        self._left: int | None = None
        """Number of bytes of the body that are still missing, or None if unknown."""

    @property
    def keeps_open(self) -> bool:
        """Whether another request may follow on the connection."""
        return (
            self.is_complete
            and (self._is_chunked or b"content-length" in self.headers)
            and self.headers.get(b"connection", b"").lower() != b"close"
        )

    def feed(self, data: bytes) -> bytes:
        """Parse bytes from the connection; return those that belong to the body."""
        self._buffer += data
        if not self.status and not self._read_head():
            return b""
        if self._is_chunked:
            return b"".join(self._chunks())
        found, self._buffer = self._buffer, b""
        if self._left is not None:
            self._left -= len(found)
            self.is_complete = self._left <= 0
        return found

    def end(self) -> None:
        """Note that the connection was closed. Raise `CutOff` if the response is incomplete."""
        if not self.status or self._is_chunked or self._left:
            raise CutOff("the connection was closed within the answer")
        self.is_complete = True

    def _read_head(self) -> bool:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return False
        first, *lines = head.split(b"\r\n")
        try:
            self.status = int(first.split(b" ", 2)[1])
        except (IndexError, ValueError):
            raise CutOff(f"not HTTP: {first[:80]!r}") from None
        for line in lines:
            name, _, value = line.partition(b":")
            self.headers[name.strip().lower()] = value.strip()
        self._is_chunked = self.headers.get(b"transfer-encoding", b"").lower() == b"chunked"
        if b"content-length" in self.headers:
            self._left = int(self.headers[b"content-length"])
            self.is_complete = not self._left
        self._buffer = rest
        return True

    def _chunks(self) -> list[bytes]:
        """Return the complete chunks of the buffer. An event never spans two chunks."""
        found: list[bytes] = []
        while not self.is_complete:
            size, end, rest = self._buffer.partition(b"\r\n")
            if not end:
                break
            num_bytes = int(size.partition(b";")[0], 16)
            if len(rest) < num_bytes + 2:
                break
            found.append(rest[:num_bytes])
            self._buffer = rest[num_bytes + 2 :]
            self.is_complete = not num_bytes
        return found


class Delta(Struct):
    """The addition of one chunk to a chat answer."""

    content: str | None = None
    reasoning_content: str | None = None


class Choice(Struct):
    """The answer's next piece: a delta in a chat, a text in a completion."""

    delta: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None

    @property
    def piece(self) -> str:
        """The text of the piece."""
        if self.delta is None:
            return self.text or ""
        return self.delta.content or self.delta.reasoning_content or ""


class Cached(Struct):
    """The number of prompt tokens that were not computed again."""

    cached_tokens: int = 0


class Usage(Struct):
    """The numbers of tokens of an answer, as the server counts them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: Cached | None = None


class Chunk(Struct):
    """One event of a stream in OpenAI's format or llmd's own."""

    choices: list[Choice] = []
    text: str = ""
    usage: Usage | None = None
    error: Any = None

    @property
    def piece(self) -> str:
        """The text that the event adds to the answer."""
        return self.choices[0].piece if self.choices else self.text


class Events:
    """A parser of the events of a stream."""

    def __init__(self) -> None:
        self._rest = b""
        self._decoder = msgspec.json.Decoder(Chunk)

    def feed(self, data: bytes) -> list[Chunk]:
        """Return the events that are now complete. Raise `CutOff` for a malformed one."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        found: list[Chunk] = []
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            value = line[5:].strip()
            if value == b"[DONE]":
                continue
            try:
                found.append(self._decoder.decode(value))
            except msgspec.MsgspecError as error:
                raise CutOff(f"not a chunk ({error}): {value[:80]!r}") from None
        return found
