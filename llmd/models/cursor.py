"""A forward reader for files that cannot be trusted."""

from __future__ import annotations

import os
import struct

from llmd.errors import ModelInvalid

_CHUNK_BYTES = 1_048_576

# Generous: the largest vocabularies have some 300,000 tokens and 500,000 merges.
_MAX_STRINGS = 8_000_000

_LENGTH = struct.Struct("<Q")


class Cursor:
    """Reads forward through a file, in bounded memory and never past its end. Not thread-safe.

    It uses pread instead of mmap, because a signal would kill the reader of a mapped file that
    somebody truncates. Every method raises ModelInvalid where the file or the header ends early.
    """

    def __init__(self, fd: int, *, size_bytes: int, max_bytes: int) -> None:
        self._fd = fd
        self._size_bytes = size_bytes
        self._max_bytes = max_bytes
        self._chunk = b""
        self._chunk_at = 0
        self._offset = 0
        self._num_strings = 0

    @property
    def position(self) -> int:
        """Return the offset of the next byte."""
        return self._chunk_at + self._offset

    def take(self, num_bytes: int) -> bytes:
        """Return the next `num_bytes` bytes. The caller must bound their number."""
        end = self._offset + num_bytes
        if end > len(self._chunk):
            self._fill(num_bytes)
            end = num_bytes
        taken = self._chunk[self._offset : end]
        self._offset = end
        return taken

    def unpack(self, form: struct.Struct) -> tuple[int, ...]:
        """Return the next numbers, as `form` describes them."""
        numbers: tuple[int, ...] = form.unpack(self.take(form.size))
        return numbers

    def text(self, what: str, max_bytes: int) -> str:
        """Return the next string. Raise ModelInvalid if it is too long, or not UTF-8."""
        (length,) = self.unpack(_LENGTH)
        if length > max_bytes:
            message = f"{what} has {length} bytes, at most {max_bytes} are read"
            raise ModelInvalid(message)
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            message = f"{what} is not UTF-8 text"
            raise ModelInvalid(message) from None

    def skip(self, num_bytes: int) -> None:
        """Skip the next `num_bytes` bytes."""
        self._check(self.position + num_bytes)
        self._offset += num_bytes

    def skip_strings(self, count: int) -> None:
        """Skip the next `count` strings without decoding them."""
        self._num_strings += count
        if self._num_strings > _MAX_STRINGS:
            message = f"more than {_MAX_STRINGS} strings in the header"
            raise ModelInvalid(message)
        unpack_from = _LENGTH.unpack_from
        while count:
            self._fill(_LENGTH.size)
            chunk, offset = self._chunk, self._offset
            last = len(chunk) - _LENGTH.size
            while count and offset <= last:
                offset += _LENGTH.size + unpack_from(chunk, offset)[0]
                count -= 1
            self._offset = offset
            self._check(self.position)

    def _fill(self, num_bytes: int) -> None:
        """Read a chunk that begins at the position and contains the next `num_bytes` bytes."""
        self._check(self.position + num_bytes)
        self._chunk_at, self._offset = self.position, 0
        wanted = max(num_bytes, _CHUNK_BYTES)
        self._chunk = os.pread(self._fd, wanted, self._chunk_at)
        if len(self._chunk) < num_bytes:
            message = f"the file shrank to less than {self._chunk_at + num_bytes} bytes"
            raise ModelInvalid(message)

    def _check(self, end: int) -> None:
        if end > self._size_bytes:
            message = (
                f"truncated: the header continues past the {self._size_bytes} bytes of the file"
            )
            raise ModelInvalid(message)
        if end > self._max_bytes:
            message = f"the header is longer than {self._max_bytes} bytes"
            raise ModelInvalid(message)
