from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmd.models.gguf import GgufHeader, read_header
from llmd.models.kinds import Kind
from tests.support.gguf_file import (
    DATA,
    ENTRIES,
    GOOD,
    TENSORS,
    build,
    having,
    read,
    string,
    strings,
    tensor,
    text,
    u32,
    without,
)


def test_valid_file_is_read(tmp_path: Path) -> None:
    """The header of a valid file is read, whatever the order and types of its entries."""
    header = read(tmp_path, GOOD)
    assert header == GgufHeader(
        version=3,
        kind=Kind.DECODER,
        architecture="llama",
        name="Tiny",
        num_tensors=2,
        num_context_tokens=2048,
        num_layers=3,
        num_vocabulary=3,
        num_parameters=67,
        quantisation="Q4_0",
        size_bytes=len(GOOD),
        chat_template="{{ messages }}",
        fingerprint=header.fingerprint,
    )
    assert read(tmp_path, build(ENTRIES[::-1])).architecture == "llama"


def test_optional_entries_may_be_missing(tmp_path: Path) -> None:
    """Template, name and file type are optional; the commonest tensor type stands for the last."""
    entries = [u32("llama.block_count", 1), u32("llama.context_length", 8)]
    header = read(tmp_path, build([*entries, string("general.architecture", "llama")], version=2))
    assert (header.version, header.name, header.chat_template) == (2, "", None)
    assert header.quantisation == "Q4_0"


def test_other_alignment_is_followed(tmp_path: Path) -> None:
    """The data begins where general.alignment says."""
    tensors = [TENSORS[0], tensor("b", [3], offset=40)]
    content = build(having(u32("general.alignment", 8)), tensors, DATA[:52], alignment=8)
    assert read(tmp_path, content).num_parameters == 67


def test_fingerprint_identifies_the_weights(tmp_path: Path) -> None:
    """Equal files have the same fingerprint; other metadata or weights have another one."""
    changed_data = build(data=DATA[:-1] + b"!")
    changed_head = build(having(string("general.name", "Mini")))
    first, second, third, again = (
        read(tmp_path, content).fingerprint for content in (GOOD, changed_data, changed_head, GOOD)
    )
    assert len({first, second, third}) == 3
    assert first == again


def test_large_vocabulary_is_skipped(tmp_path: Path) -> None:
    """A vocabulary of many chunks is counted but not kept, even if strings span chunks."""
    words = ["x" * (number % 40) for number in range(200_000)]
    long = ["y" * 3_000_000, "", "z"]
    entries = [
        strings("tokenizer.ggml.tokens", words),
        strings("a", long),
        *without("tokenizer.ggml.tokens"),
    ]
    header = read(tmp_path, build(entries))
    assert header.num_vocabulary == 200_000
    assert header.chat_template == "{{ messages }}"


def test_model_given_by_the_environment_is_read() -> None:
    """The header of the real model that other tests use is read."""
    path = os.environ.get("LLMD_TEST_MODEL")
    if not path:
        pytest.skip("LLMD_TEST_MODEL names no file")
    header = read_header(Path(path))
    assert header.num_vocabulary > 1000
    assert header.num_layers > 1
    assert text(header.architecture)
