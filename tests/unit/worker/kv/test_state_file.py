"""The format and the checksum of a file with a KV state."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.worker.kv import state_file
from llmd.worker.kv.conversation import Conversation
from llmd.worker.kv.disk import DiskStates
from llmd.worker.kv.reuse_rule import Checkpoint
from llmd.worker.kv.saved_state import SavedState

SIZE = 200_003
STATE = random.Random(1).randbytes(SIZE)


@given(st.integers(0, SIZE - 1), st.integers(1, 255))
def test_a_changed_byte_is_detected(at: int, change: int) -> None:
    """A changed byte is detected in the blocks that are added up and in the rest."""
    changed = bytearray(STATE)
    changed[at] ^= change
    assert state_file.checksum(bytes(changed)) != state_file.checksum(STATE)


@pytest.mark.parametrize("begin", [0, 65_536, 131_072, SIZE - 4096])
def test_empty_and_exchanged_sectors_are_detected(begin: int) -> None:
    """A crash can leave sectors empty or exchange them, which the checksum detects."""
    empty = STATE[:begin] + bytes(4096) + STATE[begin + 4096 :]
    assert state_file.checksum(empty) != state_file.checksum(STATE)
    swapped = STATE[65_536:131_072] + STATE[:65_536] + STATE[131_072:]
    assert state_file.checksum(swapped) != state_file.checksum(STATE)


def test_a_large_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    """A state, its checkpoints and its first cell come back as they were."""
    path = tmp_path / "a"
    saved = SavedState(STATE, 7, (Checkpoint(5, b"five"), Checkpoint(90, STATE[:4097])))
    state_file.write(path, "ann", "1", list(range(3000)), saved)
    read = state_file.read(path)
    assert (bytes(read.data), read.first_cell) == (STATE, 7)
    assert [(one.num_tokens, bytes(one.data)) for one in read.checkpoints] == [
        (5, b"five"),
        (90, STATE[:4097]),
    ]
    header = state_file.read_header(path)
    assert (header.owner, header.session, header.tokens[-1]) == ("ann", "1", 2999)


def test_a_state_is_read_without_support_for_populating_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel before Linux 5.14 cannot populate mapped pages, so the file is copied."""
    path = tmp_path / "a"
    state_file.write(path, "ann", "1", [1], SavedState(STATE))
    monkeypatch.setattr(state_file, "_MADV_POPULATE_READ", 9999)
    assert bytes(state_file.read(path).data) == STATE


def test_a_full_disk_leaves_no_incomplete_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that fails on a full disk causes a warning, and its file is deleted."""

    def full(path: Path, *_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(state_file, "write", full)
    warnings: list[str] = []
    disk = DiskStates(tmp_path, "model", 1 << 20, warnings.append)
    disk.add(Conversation("ann", "1"), list(range(200)), SavedState(b"state"))
    disk.close()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert len(warnings) == 1
    assert "No space left" in warnings[0]
