"""Read a body with the transfer coding `chunked`, strictly as RFC 9112, section 7.1 defines it.

A proxy in front of llmd must find the same end of the body. So nothing is accepted that one reader
could take for the end of a line or of the body, and another not.
"""

from __future__ import annotations

import re

from waitress.buffers import OverflowableBuffer
from waitress.rfc7230 import CHUNK_EXT_RE, HEADER_FIELD_RE
from waitress.utilities import BadRequest

_MAX_LINE_BYTES = 4096
_MAX_TRAILER_BYTES = 16_384

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(;.*)?", re.DOTALL)


class _NotChunked(Exception):
    """The bytes are not a chunked body."""


class ChunkedBody:
    """The receiver of a chunked body, with the attributes that waitress expects of one."""

    def __init__(self, buffer: OverflowableBuffer) -> None:
        self.completed = False
        self.error: BadRequest | None = None
        self._buffer = buffer
        self._read = self._read_size
        self._line = b""
        self._num_remaining = 0
        self._num_trailer_bytes = 0

    def __len__(self) -> int:
        """Return the number of bytes of the body so far, without its framing."""
        return int(self._buffer.__len__())

    def received(self, data: bytes) -> int:
        """Take bytes from the client, and return how many of them belong to the body."""
        at = 0
        try:
            while at < len(data) and not self.completed:
                if self._num_remaining:
                    chunk = data[at : at + self._num_remaining]
                    self._buffer.append(chunk)
                    self._num_remaining -= len(chunk)
                    at += len(chunk)
                else:
                    at = self._take_line(data, at)
        except _NotChunked as error:
            self.error = BadRequest(str(error))
            return len(data)
        return at

    def getfile(self) -> object:
        """Return the body as a file."""
        return self._buffer.getfile()

    def getbuf(self) -> OverflowableBuffer:
        """Return the buffer that holds the body."""
        return self._buffer

    def _take_line(self, data: bytes, at: int) -> int:
        """Take bytes up to the end of a line, and return the index after them."""
        end = data.find(b"\n", at) + 1
        self._line += data[at : end or len(data)]
        if len(self._line) > _MAX_LINE_BYTES:
            raise _NotChunked("a line between the chunks is too long")
        if end:
            if not self._line.endswith(b"\r\n"):
                raise _NotChunked("a line between the chunks does not end with CR LF")
            line, self._line = self._line[:-2], b""
            self._read(line)
        return end or len(data)

    def _read_size(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise _NotChunked("the size of a chunk is not a hexadecimal number")
        if not CHUNK_EXT_RE.fullmatch(match[2] or b""):
            raise _NotChunked("the extension of a chunk is malformed")
        self._num_remaining = int(match[1], 16)
        self._read = self._read_end_of_chunk if self._num_remaining else self._read_trailer

    def _read_end_of_chunk(self, line: bytes) -> None:
        if line:
            raise _NotChunked("a chunk is longer than its size")
        self._read = self._read_size

    def _read_trailer(self, line: bytes) -> None:
        """Check a line of the trailer. Its fields are ignored."""
        self._num_trailer_bytes += len(line)
        if not line:
            self.completed = True
        elif not HEADER_FIELD_RE.fullmatch(line):
            raise _NotChunked("the trailer has a malformed line")
        elif self._num_trailer_bytes > _MAX_TRAILER_BYTES:
            raise _NotChunked("the trailer is too long")
