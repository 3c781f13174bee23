"""Files that are not models, or whose header is wrong."""

from __future__ import annotations

import os
import resource
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmd.errors import ModelInvalid
from llmd.models import gguf
from llmd.models.gguf import read_header
from tests.support.gguf_file import (
    ENTRIES,
    GOOD,
    LIST,
    STRING,
    TENSORS,
    TYPE_Q4_0,
    U8,
    U64,
    build,
    having,
    read,
    string,
    strings,
    tensor,
    u32,
    without,
)


@pytest.mark.parametrize("cut", sorted({*range(0, len(GOOD), 17), len(GOOD) - 1}))
def test_truncated_file_is_refused(cut: int, tmp_path: Path) -> None:
    """A file is refused by name wherever it is cut off."""
    with pytest.raises(ModelInvalid, match=r"^m\.gguf: ") as caught:
        read(tmp_path, GOOD[:cut])
    assert cut < 24 or "truncated" in caught.value.message


def test_error_about_truncated_data_has_both_sizes(tmp_path: Path) -> None:
    """The error for an unfinished download says how many of how many bytes exist."""
    with pytest.raises(ModelInvalid, match=f"truncated: {len(GOOD) - 1} of {len(GOOD)} bytes"):
        read(tmp_path, GOOD[:-1])


FOREIGN = [
    (b"", "it is empty"),
    (b"\0" * 100, "zeros"),
    (b"hello world", "begins with b'hell'"),
    (struct.pack("<Q", 90) + b'{"__metadata__":{}}', "safetensors"),
    (b"PK\x03\x04rest", "zip"),
    (b"lmgg\x01", "ggml"),
    (b"tjgg\x01", "ggjt"),
    (b" <!DOCTYPE html><html>", "web page"),
    (b"<html><body>404", "web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
    (b"\x1f\x8bxx", "gzip"),
    (b'{"error": "not found"}', "JSON"),
]


@pytest.mark.parametrize(("content", "words"), FOREIGN, ids=[words for _, words in FOREIGN])
def test_error_about_another_kind_of_file_names_the_kind(
    content: bytes, words: str, tmp_path: Path
) -> None:
    """The error for a file that is not GGUF says what it looks like."""
    with pytest.raises(ModelInvalid, match="not a GGUF file") as caught:
        read(tmp_path, content)
    assert words in caught.value.message


HUGE = struct.pack("<Q", 2**63)
WRONG = {
    "version 0": (build(version=0), "version 0"),
    "version 1": (build(version=1), "version 1: only 2 and 3"),
    "version 4": (build(version=4), "version 4"),
    "version 2^31": (build(version=2**31), "version 2147483648"),
    "big-endian": (b"GGUF\0\0\0\3" + GOOD[8:], "big-endian"),
    "entries": (build(num_entries=2**64 - 1), "18446744073709551615 metadata entries"),
    "entries too many": (build(num_entries=12), "at most"),
    "tensors": (build(num_tensors=2**63), "9223372036854775808 tensors"),
    "no tensors": (build(tensors=[]), "no tensors"),
    "one tensor too many": (build(num_tensors=3), ""),
    "string past end": (build([("general.x", STRING, HUGE)]), "truncated"),
    "kept string": (build(having(string("general.name", "x" * 1025))), "1025 bytes, at most 1024"),
    "template": (build(having(("tokenizer.chat_template", STRING, HUGE))), "at most 1048576"),
    "key past end": (build()[:24] + HUGE, "at most 512"),
    "empty key": (build([string("", "x")]), "empty"),
    "key not text": (GOOD.replace(b"general.author", b"general.\xff\xfethor"), "not UTF-8"),
    "name not text": (build(having(string("general.name", b"\xff"))), "not UTF-8"),
    "duplicate key": (build([*ENTRIES, ENTRIES[2]]), "'general.author' occurs twice"),
    "value type": (build(having(("x", 13, b""))), "'x' has the unknown type 13"),
    "list type": (
        build(having(("x", LIST, struct.pack("<IQ", 13, 1)))),
        "'x' is a list of the unknown type 13",
    ),
    "list of lists": (
        build(having(("x", LIST, struct.pack("<IQ", LIST, 1)))),
        "'x' is a list of the unknown type 9",
    ),
    "list length": (build(having(("x", LIST, struct.pack("<IQ", U64, 2**60)))), "truncated"),
    "list overflow": (build(having(("x", LIST, struct.pack("<IQ", U64, 2**61)))), "truncated"),
    "strings": (build(having(strings("x", ["a"], count=2**60))), "strings in the header"),
    "strings past end": (build(having(strings("x", ["a"], count=7_000_000))), "truncated"),
    "no architecture": (build(without("general.architecture")), "general.architecture"),
    "architecture": (
        build(having(string("general.architecture", "a\nb"))),
        "general.architecture",
    ),
    "no context": (build(without("llama.context_length")), "llama.context_length"),
    "context 0": (build(having(u32("llama.context_length", 0))), "llama.context_length is 0"),
    "no layers": (build(without("llama.block_count")), "llama.block_count"),
    "context text": (build(having(string("llama.context_length", "9"))), "llama.context_length"),
    "alignment 0": (build(having(u32("general.alignment", 0))), "general.alignment is 0"),
    "alignment 24": (build(having(u32("general.alignment", 24))), "general.alignment is 24"),
    "alignment 2^31": (build(having(u32("general.alignment", 2**31))), "general.alignment"),
    "alignment type": (
        build(having(("general.alignment", U8, b"\x20"))),
        "general.alignment is 32",
    ),
    "split": (
        build(having(u32("split.count", 3), u32("split.no", 1))),
        "part 2 of 3 of a split model: join",
    ),
    "vocabulary": (build(having(string("general.type", "vocab"))), "not a language model"),
    "statistics": (build(having(string("general.type", "imatrix"))), "not a language model"),
    "tensor type": (build(tensors=[tensor("a", [32], kind=99)]), "unknown type 99"),
    "removed tensor type": (build(tensors=[tensor("a", [32], kind=4)]), "unknown type 4"),
    "tensor twice": (build(tensors=[TENSORS[0], TENSORS[0]]), "'a' occurs twice"),
    "tensor name": (build(tensors=[tensor("a" * 64, [1])]), "64 bytes, at most 63"),
    "tensor name bytes": (build(tensors=[tensor(b"\xff", [1])]), "not UTF-8"),
    "no dimension": (build(tensors=[tensor("a", [])]), "0 dimensions"),
    "five dimensions": (build(tensors=[tensor("a", [1] * 5)]), "5 dimensions"),
    "length 0": (build(tensors=[tensor("a", [4, 0])]), "impossible shape"),
    "length 2^63": (build(tensors=[tensor("a", [2**63])]), "impossible shape"),
    "product overflow": (build(tensors=[tensor("a", [2**32, 2**32])]), "impossible shape"),
    "bytes overflow": (build(tensors=[tensor("a", [2**62])]), "truncated"),
    "part of a block": (
        build(tensors=[tensor("a", [33], kind=TYPE_Q4_0)]),
        "needs a multiple of 32",
    ),
    "extent": (build(tensors=[tensor("a", [1000])]), "truncated"),
    "offset": (build(tensors=[tensor("a", [1], offset=2**63)]), "not at 0"),
    "overlap": (build(tensors=[TENSORS[0], tensor("b", [1], offset=32)]), "not at 64"),
    "unaligned": (build(tensors=[TENSORS[0], tensor("b", [1], offset=65)]), "not at 64"),
}


@pytest.mark.parametrize(("content", "words"), WRONG.values(), ids=WRONG)
def test_wrong_header_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    """Each known way in which a header can be wrong is refused with the file and the cause."""
    with pytest.raises(ModelInvalid) as caught:
        read(tmp_path, content)
    assert caught.value.message.startswith("m.gguf: ")
    assert words in caught.value.message
    assert caught.value.param == "model"


@settings(max_examples=400)
@given(data=st.data())
def test_damaged_file_is_read_or_refused(data: st.DataObject) -> None:
    """Overwriting, removing or inserting bytes leads to a header or to ModelInvalid."""
    content = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        num = data.draw(st.sampled_from([0, 1, 4, 8]))
        content[at : at + num] = data.draw(
            st.one_of(
                st.binary(max_size=8),
                st.sampled_from([b"\xff" * 8, HUGE, struct.pack("<Q", 2**60), b"\0" * 8]),
            )
        )
    with tempfile.TemporaryDirectory() as folder:
        try:
            header = read(Path(folder), bytes(content))
        except ModelInvalid:
            return
        assert header.num_parameters > 0
        assert header.num_context_tokens > 0


@settings(max_examples=100)
@given(content=st.binary(max_size=300))
def test_any_bytes_after_the_magic_are_refused(content: bytes) -> None:
    """Random bytes after the magic number are refused."""
    with tempfile.TemporaryDirectory() as folder, pytest.raises(ModelInvalid):
        read(Path(folder), b"GGUF" + content)


def test_memory_does_not_grow_with_the_claims_of_a_file(tmp_path: Path) -> None:
    """A sparse file of one TiB that claims a list of that size is refused in little memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    file = tmp_path / "m.gguf"
    file.write_bytes(build([("x", LIST, struct.pack("<IQ", U8, 2**39))], data=b""))
    os.truncate(file, 2**40)
    with pytest.raises(ModelInvalid, match="the header is longer than"):
        read_header(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024


@pytest.mark.parametrize("size_bytes", [2**40, 2**62, len(GOOD) + 2**20 + 64])
def test_a_file_that_has_grown_is_refused(tmp_path: Path, size_bytes: int) -> None:
    """A whole model with a hole after its last tensor is refused, and its size is not used."""
    file = tmp_path / "m.gguf"
    file.write_bytes(GOOD)
    try:
        os.truncate(file, size_bytes)
    except OSError:
        pytest.skip("this file system has no files of this size")
    with pytest.raises(ModelInvalid, match=r"^m\.gguf: has \d+ bytes after its last tensor"):
        read_header(file)


def test_a_file_may_be_padded(tmp_path: Path) -> None:
    """Some zeros after the last tensor, as some tools write them, do no harm."""
    assert read(tmp_path, GOOD + bytes(4096)).num_tensors == 2


@pytest.mark.parametrize("kind", ["folder", "pipe", "nothing", "unreadable name", "nul"])
def test_path_that_is_not_a_file_is_refused(kind: str, tmp_path: Path) -> None:
    """A folder, a pipe without a writer and a missing file are refused at once."""
    path = tmp_path / "m.gguf"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "unreadable name":
        path = tmp_path / ("x" * 300)
    elif kind == "nul":
        path = tmp_path / "a\0.gguf"
    with pytest.raises(ModelInvalid):
        read_header(path)


def test_file_that_shrinks_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that shrinks during the read raises ModelInvalid: it is not mapped into memory."""
    file = tmp_path / "m.gguf"
    file.write_bytes(GOOD)

    def start_and_cut(cursor: object, beginning: bytes) -> tuple[int, int, int]:
        os.truncate(file, 30)
        return start(cursor, beginning)  # type: ignore[arg-type]

    start = gguf._start
    monkeypatch.setattr(gguf, "_start", start_and_cut)
    with pytest.raises(ModelInvalid, match="shrank"):
        read_header(file)
