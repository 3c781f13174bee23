"""Build valid and invalid GGUF files."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from llmd.models.gguf import GgufHeader, read_header

Entry = tuple[str, int, bytes]

U8, U32, BOOL, STRING, LIST, U64, F32 = 0, 4, 7, 8, 9, 10, 6
TYPE_F32, TYPE_Q4_0 = 0, 2


def text(value: str | bytes) -> bytes:
    """Return a string as the file format stores it."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def string(key: str, value: str | bytes) -> Entry:
    """Return a metadata entry that is a string."""
    return key, STRING, text(value)


def u32(key: str, value: int) -> Entry:
    """Return a metadata entry that is a 32-bit number."""
    return key, U32, struct.pack("<I", value)


def flag(key: str, value: bool) -> Entry:
    """Return a metadata entry that is true or false."""
    return key, BOOL, bytes([value])


def strings(key: str, values: list[str], *, count: int | None = None) -> Entry:
    """Return a metadata entry that is a list of strings and claims to have `count` of them."""
    num = len(values) if count is None else count
    return key, LIST, struct.pack("<IQ", STRING, num) + b"".join(map(text, values))


def tensor(
    name: str | bytes, lengths: list[int], *, kind: int = TYPE_F32, offset: int = 0
) -> bytes:
    """Return the description of a tensor."""
    shape = struct.pack(f"<I{len(lengths)}Q", len(lengths), *lengths)
    return text(name) + shape + struct.pack("<IQ", kind, offset)


ENTRIES: list[Entry] = [
    string("general.architecture", "llama"),
    string("general.name", "Tiny"),
    string("general.author", "nobody"),
    u32("general.file_type", 2),
    u32("llama.context_length", 2048),
    u32("llama.block_count", 3),
    ("general.is_good", BOOL, b"\1"),
    ("llama.rope.freq_base", F32, struct.pack("<f", 1e4)),
    strings("tokenizer.ggml.tokens", ["<s>", "a", "bc"]),
    ("tokenizer.ggml.scores", LIST, struct.pack("<IQ3f", F32, 3, 0.0, 1.0, 2.0)),
    string("tokenizer.chat_template", "{{ messages }}"),
]

TENSORS: list[bytes] = [
    tensor("a", [32, 2], kind=TYPE_Q4_0, offset=0),
    tensor("b", [3], offset=64),
]

# 36 bytes of the first tensor, padding up to 64, and 12 bytes of the second tensor.
DATA = bytes(range(76))


def build(
    entries: list[Entry] | None = None,
    tensors: list[bytes] | None = None,
    data: bytes = DATA,
    *,
    version: int = 3,
    num_entries: int | None = None,
    num_tensors: int | None = None,
    magic: bytes = b"GGUF",
    alignment: int = 32,
) -> bytes:
    """Return a file, by default a valid one. `num_entries` and `num_tensors` set its claims."""
    entries = ENTRIES if entries is None else entries
    tensors = TENSORS if tensors is None else tensors
    head = magic + struct.pack(
        "<IQQ",
        version,
        len(tensors) if num_tensors is None else num_tensors,
        len(entries) if num_entries is None else num_entries,
    )
    for key, kind, value in entries:
        head += text(key) + struct.pack("<I", kind) + value
    head += b"".join(tensors)
    return head + bytes(-len(head) % alignment) + data


def without(key: str) -> list[Entry]:
    """Return the entries of a valid file without one."""
    return [entry for entry in ENTRIES if entry[0] != key]


def having(*changed: Entry) -> list[Entry]:
    """Return the entries of a valid file, with these replaced or added."""
    keys = {entry[0] for entry in changed}
    return [entry for entry in ENTRIES if entry[0] not in keys] + list(changed)


def of(architecture: str, *changed: Entry, tensors: Sequence[str] = ("a", "b")) -> bytes:
    """Return a valid file of an architecture, with these entries and two tensors."""
    sizes = (u32(f"{architecture}.{key}", 8) for key in ("context_length", "block_count"))
    entries = having(string("general.architecture", architecture), *sizes, *changed)
    described = [tensor(tensors[0], [32, 2], kind=TYPE_Q4_0), tensor(tensors[1], [3], offset=64)]
    return build(entries, described)


GOOD = build()

ENCODER = of("bert", flag("bert.attention.causal", value=False), u32("bert.pooling_type", 1))
RERANKER = of("qwen3", u32("qwen3.pooling_type", 4))
ENCODER_DECODER = of("t5", tensors=("enc.blk.0.attn_q.weight", "dec.blk.0.attn_q.weight"))
PROJECTOR = build(
    [string("general.architecture", "clip"), string("general.type", "mmproj")],
)
ADAPTER = build(
    [string("general.architecture", "llama"), string("general.type", "adapter")],
)


def read(folder: Path, content: bytes) -> GgufHeader:
    """Write a file with this content and return its header."""
    file = folder / "m.gguf"
    file.write_bytes(content)
    return read_header(file)
