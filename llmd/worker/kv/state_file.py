"""A file with one KV state: who may have it, its tokens, and what is to be checked before use."""

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

from llmd.worker.backend import StateBytes

_MAGIC = b"LLMDKV2\n"
_LENGTH = struct.Struct(">I")
_MAX_HEADER_BYTES = 64 * 1024 * 1024
_PAGE = 4096
"""The state begins at a multiple of this, so that it can be summed where it is mapped."""

_BLOCK = 8192
"""Numbers of eight bytes that are summed up to one."""

_MADV_POPULATE_READ = 22
"""Linux 5.14's; Python does not name it yet."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a file begins with. `checksum` is that of the state behind it."""

    owner: str
    session: str
    tokens: list[int]
    num_bytes: int
    checksum: int


def write(path: Path, owner: str, session: str, tokens: list[int], data: StateBytes) -> None:
    """Write a new file for the owner's eyes alone. Raise OSError when that cannot be."""
    header = msgspec.msgpack.encode(
        Header(
            owner=owner,
            session=session,
            tokens=tokens,
            num_bytes=len(data),
            checksum=checksum(data),
        )
    )
    head = _MAGIC + _LENGTH.pack(len(header)) + header
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(head.ljust(_begin_of(len(header)), b"\0"))
        file.write(data)


def read_header(path: Path) -> Header:
    """Return who has a state, and its tokens. Raise OSError, ValueError or msgspec's errors."""
    with path.open("rb") as file:
        return _header(file.read)[0]


def read(path: Path) -> StateBytes:
    """Return a state that is just what was written. Raise as `read_header` does."""
    with path.open("rb") as file:
        header, begin = _header(file.read)
        data = _content(file)[begin:]
    if len(data) != header.num_bytes or checksum(data) != header.checksum:
        raise ValueError("its content is not what was written")
    return data


def checksum(data: StateBytes) -> int:
    """Return the CRC-32 of the sums of blocks of 64 KiB, and of the rest.

    It tells what happens to files (bits that turn, sectors that are empty or another's), and
    reads as fast as the memory gives. CRC-32 of all takes three times as long, and somebody waits.
    """
    words = np.frombuffer(data, np.uint64, len(data) // 8)
    num_whole = len(words) // _BLOCK * _BLOCK
    sums = words[:num_whole].reshape(-1, _BLOCK).sum(axis=1, dtype=np.uint64)
    return zlib.crc32(data[8 * num_whole :], zlib.crc32(sums.tobytes()))


def _content(file: BinaryIO) -> memoryview:
    """Return a file where the kernel has it: new memory for a copy costs more than to read it.

    A disk's fault is an error here, and not a signal to the process where the state is used.
    """
    mapped = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    try:
        mapped.madvise(_MADV_POPULATE_READ)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # An older kernel, which cannot be asked.
        file.seek(0)
        return memoryview(file.read())
    return memoryview(mapped)


def _header(read: Callable[[int], bytes]) -> tuple[Header, int]:
    """Return a file's header, and where its state begins."""
    head = read(len(_MAGIC) + _LENGTH.size)
    if len(head) != len(_MAGIC) + _LENGTH.size or not head.startswith(_MAGIC):
        raise ValueError("it is no state")
    (length,) = _LENGTH.unpack(head[len(_MAGIC) :])
    if length > _MAX_HEADER_BYTES:
        raise ValueError("its beginning is too long")
    return msgspec.msgpack.decode(read(length), type=Header), _begin_of(length)


def _begin_of(header_length: int) -> int:
    length = len(_MAGIC) + _LENGTH.size + header_length
    return -(-length // _PAGE) * _PAGE
