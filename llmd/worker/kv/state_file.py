"""The format of a file with one KV state: its owner, tokens and checksums, then the state itself.

The file begins with a magic number and the length of the header. From the next page on, the state
and then its checkpoints follow, one behind the other.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from llmd.codecs import Codec
from llmd.worker.backend import StateBytes
from llmd.worker.kv.reuse_rule import Checkpoint
from llmd.worker.kv.saved_state import SavedState

_MAGIC = b"LLMDKV3\n"
_LENGTH = struct.Struct(">I")
_MAX_HEADER_BYTES = 64 * 1024 * 1024
_PAGE = 4096
"""The state begins at a multiple of a page, so that the checksum can read it where it is mapped."""

_BLOCK = 8192
"""The checksum adds up blocks of 8,192 numbers of eight bytes."""

_MADV_POPULATE_READ = 22
"""The constant of Linux 5.14, which Python's mmap module does not name yet."""


class FilePart(msgspec.Struct, frozen=True, kw_only=True):
    """A state or checkpoint of the first `num_tokens` tokens."""

    num_tokens: int
    num_bytes: int
    checksum: int


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The header of a file. `first_cell` is that of `SavedState`."""

    owner: str
    session: str
    tokens: list[int]
    first_cell: int
    parts: list[FilePart]
    """The state, then its checkpoints."""

    @property
    def num_bytes(self) -> int:
        """The size of all parts."""
        return sum(part.num_bytes for part in self.parts)


_HEADERS: Codec[Header] = Codec(Header)


def write(path: Path, owner: str, session: str, tokens: list[int], saved: SavedState) -> None:
    """Write a new file that only this user can read. Raise OSError if that fails."""
    contents = [
        (len(tokens), saved.data),
        *((one.num_tokens, one.data) for one in saved.checkpoints),
    ]
    header = msgspec.msgpack.encode(
        Header(
            owner=owner,
            session=session,
            tokens=tokens,
            first_cell=saved.first_cell,
            parts=[
                FilePart(num_tokens=number, num_bytes=len(data), checksum=checksum(data))
                for number, data in contents
            ],
        )
    )
    head = _MAGIC + _LENGTH.pack(len(header)) + header
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(head.ljust(_begin_of(len(header)), b"\0"))
        for _, data in contents:
            file.write(data)


def read_header(path: Path) -> Header:
    """Return the header of a file. Raise OSError, ValueError or an error of msgspec."""
    with path.open("rb") as file:
        return _header(file.read)[0]


def read(path: Path) -> SavedState:
    """Return a state after checking it. Raise the errors of `read_header`."""
    with path.open("rb") as file:
        header, begin = _header(file.read)
        content = _content(file)[begin:]
    if len(content) != header.num_bytes:
        raise ValueError("the file is not as long as its header says")
    parts: list[Checkpoint] = []
    begin = 0
    for part in header.parts:
        data = content[begin : begin + part.num_bytes]
        if checksum(data) != part.checksum:
            raise ValueError("the content does not match the checksum")
        parts.append(Checkpoint(part.num_tokens, data))
        begin += part.num_bytes
    if not parts:
        raise ValueError("the file has no state")
    return SavedState(parts[0].data, header.first_cell, tuple(parts[1:]))


def checksum(data: StateBytes) -> int:
    """Return the CRC-32 of the sums of blocks of 64 KiB, and of the rest.

    This detects what happens to files (flipped bits, sectors that are empty or belong to another
    file) at the speed of memory. A CRC-32 of everything takes three times as long, while a user
    waits.
    """
    words = np.frombuffer(data, np.uint64, len(data) // 8)
    num_whole = len(words) // _BLOCK * _BLOCK
    sums = words[:num_whole].reshape(-1, _BLOCK).sum(axis=1, dtype=np.uint64)
    return zlib.crc32(data[8 * num_whole :], zlib.crc32(sums.tobytes()))


def _content(file: BinaryIO) -> memoryview:
    """Return a file's content, mapped: copying it to new memory costs more than reading it.

    All pages are read at once, so that a disk error is an exception here, and not a signal to
    the process where the state is used.
    """
    mapped = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    try:
        mapped.madvise(_MADV_POPULATE_READ)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # A kernel before 5.14 cannot read all pages at once.
        file.seek(0)
        return memoryview(file.read())
    return memoryview(mapped)


def _header(read: Callable[[int], bytes]) -> tuple[Header, int]:
    """Return a file's header and the offset of its state."""
    head = read(len(_MAGIC) + _LENGTH.size)
    if len(head) != len(_MAGIC) + _LENGTH.size or not head.startswith(_MAGIC):
        raise ValueError("the file is not a KV state")
    (length,) = _LENGTH.unpack(head[len(_MAGIC) :])
    if length > _MAX_HEADER_BYTES:
        raise ValueError("the header is too long")
    return _HEADERS.decode_msgpack(read(length)), _begin_of(length)


def _begin_of(header_length: int) -> int:
    length = len(_MAGIC) + _LENGTH.size + header_length
    return -(-length // _PAGE) * _PAGE
