"""Read the header of a GGUF file without trusting it.

Whatever the native loader would allocate, compute with or assert on is checked here first. Here a
wrong value raises an exception; there it could end the process. No memory is allocated by a count
that the file claims.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
from pathlib import Path

from msgspec import Struct

from llmd.errors import ModelInvalid
from llmd.models.cursor import Cursor
from llmd.models.ggml import QUANTISATIONS
from llmd.models.kinds import Kind, kind_of
from llmd.models.tensors import padded, read_tensors

_MAX_HEADER_BYTES = 268_435_456
_MAX_ENTRIES = 16_384
_MAX_TENSORS = 65_536
_MAX_KEY_BYTES = 512
_MAX_ALIGNMENT = 65_536
_DEFAULT_ALIGNMENT = 32
# Nothing reads what follows the last tensor. Tools pad a file to a page or to a block.
_MAX_EXTRA_BYTES = 1_048_576

_START = struct.Struct("<4sIQQ")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_ARRAY = struct.Struct("<IQ")

# The numbers by which the format names the types of values.
_STRING, _LIST, _UINT32, _BOOL = 8, 9, 4, 7
_SCALARS = {
    number: struct.Struct("<" + form)
    for number, form in zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True)
}
_INTEGERS = {0, 1, 2, 3, 4, 5, 10, 11}

# The strings to keep, with the greatest length of each in bytes. All others are skipped.
_KEPT_STRINGS = {
    "general.architecture": 64,
    "general.name": 1024,
    "general.type": 64,
    "tokenizer.chat_template": 1_048_576,
}
_ARCHITECTURE = re.compile("[A-Za-z0-9][A-Za-z0-9_.-]*")
_VOCABULARY = "tokenizer.ggml.tokens"

_CHUNK_BYTES = 1_048_576
_NUM_SAMPLES = 64
_SAMPLE_BYTES = 4096

# By their first bytes: what a file is that is not GGUF, and what to do about it.
_OTHER_FILES = {
    b"version https://git-lfs": "a Git LFS pointer: fetch the file with git lfs pull",
    b"PK\x03\x04": "a zip archive, perhaps a PyTorch checkpoint: convert it to GGUF",
    b"\x1f\x8b": "a gzip file: unpack it",
    b"\x28\xb5\x2f\xfd": "a zstd file: unpack it",
    b"\xfd7zXZ": "an xz file: unpack it",
    b"\x80\x02": "a Python pickle, perhaps a PyTorch checkpoint: convert it to GGUF",
    # The magic numbers ggml, ggmf, ggjt and ggla, stored little-endian.
    b"lmgg": "an old ggml model: get it as GGUF",
    b"fmgg": "an old ggmf model: get it as GGUF",
    b"tjgg": "an old ggjt model: get it as GGUF",
    b"algg": "an old ggla adapter: get a model as GGUF",
    b"FUGG": "a GGUF file in the wrong byte order",
    b"{": "JSON",
}


class GgufHeader(Struct, frozen=True, kw_only=True):
    """The contents of a model file's header.

    `num_context_tokens` is the context that the model was trained with. It and `num_layers` are 0
    for a projector or an adapter. `fingerprint` identifies the weights: it is a hash of the whole
    header, the size and samples of the data.
    """

    version: int
    kind: Kind
    architecture: str
    name: str
    num_tensors: int
    num_context_tokens: int
    num_layers: int
    num_vocabulary: int
    num_parameters: int
    quantisation: str
    size_bytes: int
    chat_template: str | None
    fingerprint: str


class _Metadata(Struct, kw_only=True):
    """The entries of a header that are kept. A number comes with the number of its type."""

    numbers: dict[str, tuple[int, int]]
    strings: dict[str, str]
    flags: dict[str, bool]
    num_vocabulary: int = 0


def read_header(path: Path) -> GgufHeader:
    """Return the header of the model at `path` after checking it.

    This reads the header and some samples of the data, which takes some milliseconds and memory
    for one chunk of the file. Raise ModelInvalid with the name of the file and what is wrong.
    """
    if "\0" in str(path):
        raise ModelInvalid("a file name cannot contain NUL", param="model")
    try:
        # O_NONBLOCK, because opening a pipe would otherwise wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return _read(fd)
        finally:
            os.close(fd)
    except OSError as error:
        message = f"{path.name}: cannot be read: {error.strerror}"
        raise ModelInvalid(message, param="model") from error
    except ModelInvalid as error:
        message = f"{path.name}: {error.message}"
        raise ModelInvalid(message, param="model") from error


def _read(fd: int) -> GgufHeader:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise ModelInvalid("not a regular file")
    size_bytes = status.st_size
    cursor = Cursor(fd, size_bytes=size_bytes, max_bytes=_MAX_HEADER_BYTES)
    version, num_tensors, num_entries = _start(cursor, os.pread(fd, 512, 0))
    metadata = _metadata(cursor, num_entries)
    architecture = _architecture(metadata)
    part = _part(metadata, architecture)
    num_context_tokens = num_layers = 0
    if part is None:
        num_context_tokens = _positive(metadata, f"{architecture}.context_length")
        num_layers = _positive(metadata, f"{architecture}.block_count")
    if num_tensors == 0:
        raise ModelInvalid("contains no tensors: a vocabulary alone is not a model")
    alignment = _alignment(metadata)
    tensors = read_tensors(cursor, num_tensors, alignment)
    data_at = padded(cursor.position, alignment)
    if size_bytes < data_at + tensors.end_bytes:
        message = f"truncated: {size_bytes} of {data_at + tensors.end_bytes} bytes"
        raise ModelInvalid(message)
    num_extra = size_bytes - data_at - tensors.data_bytes
    if num_extra > _MAX_EXTRA_BYTES:
        message = (
            f"has {num_extra} bytes after its last tensor: the file was damaged or has grown: "
            "get it again"
        )
        raise ModelInvalid(message)
    _, file_type = metadata.numbers.get("general.file_type", (0, -1))
    return GgufHeader(
        version=version,
        kind=part or _kind(metadata, architecture, tensors.prefixes),
        architecture=architecture,
        name=metadata.strings.get("general.name", ""),
        num_tensors=num_tensors,
        num_context_tokens=num_context_tokens,
        num_layers=num_layers,
        num_vocabulary=metadata.num_vocabulary,
        num_parameters=tensors.num_parameters,
        quantisation=QUANTISATIONS.get(file_type, tensors.main_type),
        size_bytes=size_bytes,
        chat_template=metadata.strings.get("tokenizer.chat_template"),
        fingerprint=_fingerprint(fd, data_at, size_bytes),
    )


def _start(cursor: Cursor, beginning: bytes) -> tuple[int, int, int]:
    """Return the version, the number of tensors and the number of metadata entries."""
    if not beginning.startswith(b"GGUF"):
        message = f"not a GGUF file: {_describe_other_file(beginning)}"
        raise ModelInvalid(message)
    _, version, num_tensors, num_entries = cursor.unpack(_START)
    if int.from_bytes(version.to_bytes(4, "little"), "big") in {1, 2, 3}:
        raise ModelInvalid("a big-endian GGUF file: use a little-endian one")
    if version not in {2, 3}:
        message = f"GGUF version {version}: only 2 and 3 can be loaded"
        raise ModelInvalid(message)
    if num_entries > _MAX_ENTRIES:
        message = f"claims {num_entries} metadata entries: at most {_MAX_ENTRIES} are allowed"
        raise ModelInvalid(message)
    if num_tensors > _MAX_TENSORS:
        message = f"claims {num_tensors} tensors: at most {_MAX_TENSORS} are allowed"
        raise ModelInvalid(message)
    return version, num_tensors, num_entries


def _describe_other_file(beginning: bytes) -> str:
    """Return what a file looks like by its first bytes, and what to do about it."""
    if not beginning:
        return "it is empty"
    for magic, kind in _OTHER_FILES.items():
        if beginning.startswith(magic):
            return f"it looks like {kind}"
    if beginning[8:10] == b'{"':
        return "it looks like a safetensors file: convert it to GGUF"
    if beginning.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it looks like a web page: the download went wrong"
    if not beginning.strip(b"\0"):
        return "it begins with zeros: the download went wrong"
    return f"it begins with {beginning[:4]!r}"


def _metadata(cursor: Cursor, num_entries: int) -> _Metadata:
    metadata = _Metadata(numbers={}, strings={}, flags={})
    seen: set[str] = set()
    for _ in range(num_entries):
        key = cursor.text("a metadata key", _MAX_KEY_BYTES)
        if not key:
            raise ModelInvalid("a metadata key is empty")
        if key in seen:
            message = f"metadata key {key!r} occurs twice"
            raise ModelInvalid(message)
        seen.add(key)
        (kind,) = cursor.unpack(_U32)
        if kind == _LIST:
            count = _skip_array(cursor, key)
            if key == _VOCABULARY:
                metadata.num_vocabulary = count
        elif kind == _STRING:
            if key in _KEPT_STRINGS:
                metadata.strings[key] = cursor.text(f"the value of {key}", _KEPT_STRINGS[key])
            else:
                cursor.skip(*cursor.unpack(_U64))
        elif form := _SCALARS.get(kind):
            (value,) = cursor.unpack(form)
            if kind in _INTEGERS:
                metadata.numbers[key] = (kind, value)
            elif kind == _BOOL:
                metadata.flags[key] = bool(value)
        else:
            message = f"metadata key {key!r} has the unknown type {kind}"
            raise ModelInvalid(message)
    return metadata


def _skip_array(cursor: Cursor, key: str) -> int:
    kind, count = cursor.unpack(_ARRAY)
    if kind == _STRING:
        cursor.skip_strings(count)
    elif form := _SCALARS.get(kind):
        cursor.skip(count * form.size)
    else:
        message = f"metadata key {key!r} is a list of the unknown type {kind}"
        raise ModelInvalid(message)
    return count


def _architecture(metadata: _Metadata) -> str:
    """Return the architecture. Raise ModelInvalid if there is none, or only a part of the file."""
    _, num_parts = metadata.numbers.get("split.count", (0, 1))
    if num_parts > 1:
        _, part = metadata.numbers.get("split.no", (0, 0))
        message = (
            f"part {part + 1} of {num_parts} of a split model: "
            "join the parts first with `llama-gguf-split --merge`"
        )
        raise ModelInvalid(message)
    architecture = metadata.strings.get("general.architecture", "")
    if not _ARCHITECTURE.fullmatch(architecture):
        raise ModelInvalid("has no general.architecture such as 'llama'")
    return architecture


def _part(metadata: _Metadata, architecture: str) -> Kind | None:
    """Return the kind of a file that extends a model; None for a model. Raise ModelInvalid."""
    said = metadata.strings.get("general.type", "model")
    # "clip" is what llama.cpp's converters call every projector. The first ones have no type.
    if said == "mmproj" or architecture == "clip":
        return Kind.PROJECTOR
    if said == "adapter":
        return Kind.ADAPTER
    if said != "model":
        message = f"contains {said!r} data for {architecture!r}, not a language model"
        raise ModelInvalid(message)
    return None


def _kind(metadata: _Metadata, architecture: str, tensor_prefixes: set[str]) -> Kind:
    _, pooling = metadata.numbers.get(f"{architecture}.pooling_type", (0, None))
    return kind_of(
        architecture,
        pooling=pooling,
        is_causal=metadata.flags.get(f"{architecture}.attention.causal", True),
        tensor_prefixes=tensor_prefixes,
    )


def _positive(metadata: _Metadata, key: str) -> int:
    _, number = metadata.numbers.get(key, (0, 0))
    if not 0 < number < 2**31:
        message = f"{key} is {number} or missing: it must be from 1 to {2**31 - 1}"
        raise ModelInvalid(message)
    return number


def _alignment(metadata: _Metadata) -> int:
    kind, alignment = metadata.numbers.get("general.alignment", (_UINT32, _DEFAULT_ALIGNMENT))
    is_power = alignment > 0 and alignment & (alignment - 1) == 0
    if kind != _UINT32 or not is_power or not 8 <= alignment <= _MAX_ALIGNMENT:
        message = (
            f"general.alignment is {alignment}: it must be a 32-bit number and a power of 2 "
            f"from 8 to {_MAX_ALIGNMENT}"
        )
        raise ModelInvalid(message)
    return alignment


def _fingerprint(fd: int, data_at: int, size_bytes: int) -> str:
    """Return a hash of the header, the size and evenly spaced samples of the data, 32 hex digits.

    Two models of one family may have the same header, but their weights differ nearly everywhere.
    """
    total = hashlib.sha256(size_bytes.to_bytes(8, "little"))
    for at in range(0, data_at, _CHUNK_BYTES):
        total.update(os.pread(fd, min(_CHUNK_BYTES, data_at - at), at))
    last = max(data_at, size_bytes - _SAMPLE_BYTES)
    for number in range(_NUM_SAMPLES):
        at = data_at + (last - data_at) * number // (_NUM_SAMPLES - 1)
        total.update(os.pread(fd, _SAMPLE_BYTES, at))
    return total.hexdigest()[:32]
