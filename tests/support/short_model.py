"""Write a GGUF file with the first layers of a model only.

Its tokens and chat template are those of the whole model, and it is many times faster, but its
text makes no sense.
"""

from __future__ import annotations

import struct
from pathlib import Path

_STRING, _ARRAY = 8, 9
_NUM_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Size of the values of each GGUF type, except strings and arrays."""

_ALIGNMENT = 32
"""GGUF's default alignment of tensors, in bytes."""


def write_short_model(source: Path, target: Path, num_layers: int) -> None:
    """Write the first `num_layers` of `source`, a GGUF file of the current version, to `target`."""
    reader = _Reader(source.read_bytes())
    magic, version, num_tensors, num_values = reader.take("<4sIQQ")
    values = [reader.value(num_layers) for _ in range(num_values)]
    tensors = [reader.tensor() for _ in range(num_tensors)]
    data = memoryview(reader.raw)[_aligned(reader.at) :]
    ends = sorted([*(offset for _, _, offset in tensors), len(data)])
    heads: list[bytes] = []
    contents: list[bytes] = []
    position = 0
    for name, head, offset in tensors:
        if name.startswith("blk.") and int(name.split(".")[1]) >= num_layers:
            continue
        content = _padded(bytes(data[offset : ends[ends.index(offset) + 1]]))
        heads.append(head + struct.pack("<Q", position))
        contents.append(content)
        position += len(content)
    header = struct.pack("<4sIQQ", magic, version, len(heads), num_values)
    target.write_bytes(_padded(b"".join([header, *values, *heads])) + b"".join(contents))


class _Reader:
    """Walk through the header of a GGUF file."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.at = 0

    def take(self, form: str) -> tuple[int, ...]:
        """Return the next numbers of a struct's format."""
        found = struct.unpack_from(form, self.raw, self.at)
        self.at += struct.calcsize(form)
        return found

    def value(self, num_layers: int) -> bytes:
        """Return the bytes of the next key and value; the number of layers is replaced."""
        begin = self.at
        name = self._string()
        (kind,) = self.take("<I")
        before = self.raw[begin : self.at]
        content = self.at
        self._skip(kind)
        if name.endswith(".block_count"):
            return before + struct.pack("<I", num_layers)
        return before + self.raw[content : self.at]

    def tensor(self) -> tuple[str, bytes, int]:
        """Return the next tensor's name, the bytes of its description, and its offset."""
        begin = self.at
        name = self._string()
        (num_dimensions,) = self.take("<I")
        self.at += 8 * num_dimensions + 4
        head = self.raw[begin : self.at]
        (offset,) = self.take("<Q")
        return name, head, offset

    def _string(self) -> str:
        (num_bytes,) = self.take("<Q")
        self.at += num_bytes
        return self.raw[self.at - num_bytes : self.at].decode()

    def _skip(self, kind: int) -> None:
        if kind == _STRING:
            self._string()
        elif kind == _ARRAY:
            item, count = self.take("<IQ")
            if item in _NUM_BYTES:
                self.at += count * _NUM_BYTES[item]
                return
            for _ in range(count):
                self._skip(item)
        else:
            self.at += _NUM_BYTES[kind]


def _aligned(position: int) -> int:
    return -(-position // _ALIGNMENT) * _ALIGNMENT


def _padded(content: bytes) -> bytes:
    return content + bytes(_aligned(len(content)) - len(content))
