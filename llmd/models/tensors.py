"""Read and check the list of tensors in the header of a GGUF file."""

from __future__ import annotations

import struct

from msgspec import Struct

from llmd.errors import ModelInvalid
from llmd.models.cursor import Cursor
from llmd.models.ggml import TENSOR_TYPES, TensorType

_MAX_NAME_BYTES = 63
_MAX_DIMENSIONS = 4
_MAX_ELEMENTS = 2**62

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_TYPE_AND_OFFSET = struct.Struct("<IQ")


class Tensors(Struct, kw_only=True):
    """The sums over all tensors of a file.

    `end_bytes` is where the last tensor ends, and `data_bytes` where its padding ends. Both count
    from the beginning of the data. `prefixes` are the first word and the first
    two words of each name, such as "blk" and "blk.0".
    """

    num_parameters: int = 0
    end_bytes: int = 0
    data_bytes: int = 0
    bytes_by_type: dict[str, int]
    prefixes: set[str]

    @property
    def main_type(self) -> str:
        """Return the type of most of the bytes, by which people name the file."""
        return max(self.bytes_by_type, key=self.bytes_by_type.__getitem__)


def read_tensors(cursor: Cursor, num_tensors: int, alignment: int) -> Tensors:
    """Read and check `num_tensors` entries from `cursor`. Raise ModelInvalid."""
    tensors = Tensors(bytes_by_type={}, prefixes=set())
    seen: set[str] = set()
    for _ in range(num_tensors):
        name = cursor.text("a tensor's name", _MAX_NAME_BYTES)
        if name in seen:
            message = f"tensor {name!r} occurs twice"
            raise ModelInvalid(message)
        seen.add(name)
        words = name.split(".", 2)
        tensors.prefixes.update((words[0], ".".join(words[:2])))
        num_elements, row_length = _shape(cursor, name)
        kind, offset = cursor.unpack(_TYPE_AND_OFFSET)
        tensor_type = _tensor_type(kind, name)
        if row_length % tensor_type.block_length:
            message = (
                f"tensor {name!r} has rows of {row_length} elements: "
                f"{tensor_type.name} needs a multiple of {tensor_type.block_length}"
            )
            raise ModelInvalid(message)
        # The native loader accepts only tensors in sequence, each padded to the alignment.
        if offset != tensors.data_bytes:
            message = (
                f"tensor {name!r} is at {offset}, not at {tensors.data_bytes}, "
                "where the tensor before it ends"
            )
            raise ModelInvalid(message)
        num_bytes = num_elements // tensor_type.block_length * tensor_type.block_bytes
        tensors.num_parameters += num_elements
        tensors.end_bytes = offset + num_bytes
        tensors.data_bytes = padded(tensors.end_bytes, alignment)
        sums = tensors.bytes_by_type
        sums[tensor_type.name] = sums.get(tensor_type.name, 0) + num_bytes
    return tensors


def _shape(cursor: Cursor, name: str) -> tuple[int, int]:
    """Return the number of elements and the length of a row of the next tensor."""
    (num_dimensions,) = cursor.unpack(_U32)
    if not 1 <= num_dimensions <= _MAX_DIMENSIONS:
        message = f"tensor {name!r} has {num_dimensions} dimensions: 1 to 4 are allowed"
        raise ModelInvalid(message)
    lengths = [cursor.unpack(_U64)[0] for _ in range(num_dimensions)]
    num_elements = 1
    for length in lengths:
        num_elements *= length
        if not 0 < num_elements <= _MAX_ELEMENTS:
            message = f"tensor {name!r} has the impossible shape {lengths}"
            raise ModelInvalid(message)
    return num_elements, lengths[0]


def _tensor_type(kind: int, name: str) -> TensorType:
    if kind not in TENSOR_TYPES:
        message = f"tensor {name!r} has the unknown type {kind}: made for another version?"
        raise ModelInvalid(message)
    return TENSOR_TYPES[kind]


def padded(num_bytes: int, alignment: int) -> int:
    """Return `num_bytes` rounded up to a multiple of `alignment`."""
    return (num_bytes + alignment - 1) // alignment * alignment
