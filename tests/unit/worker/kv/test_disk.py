"""KV states in files."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from llmd.worker.kv.conversation import Conversation
from llmd.worker.kv.disk import DiskStates, fingerprint_of
from llmd.worker.kv.reuse_rule import Reuse, ReuseRule
from llmd.worker.kv.saved_state import SavedState

Open = Callable[..., DiskStates]
TOKENS = list(range(200))
RULE = ReuseRule(can_truncate=True, window=0)


@pytest.fixture
def warnings() -> list[str]:
    """Return the list of warnings."""
    return []


@pytest.fixture
def open_disk(tmp_path: Path, warnings: list[str]) -> Open:
    """Return a function that opens the states of a model, as the next worker does."""

    def open_(fingerprint: str = "model", max_bytes: int = 1 << 20) -> DiskStates:
        return DiskStates(tmp_path / "kv", fingerprint, max_bytes, warnings.append)

    return open_


def _files(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "kv").rglob("*") if path.is_file())


def _read(disk: DiskStates, owner: str = "ann", tokens: list[int] = TOKENS) -> bytes | None:
    _, state = disk.find(owner, tokens, RULE)
    saved = None if state is None else disk.load(state)
    return None if saved is None else bytes(saved.data)


def test_a_state_is_found_by_the_next_worker(open_disk: Open, tmp_path: Path) -> None:
    """A state is found before and after it is written, in a file that only its user can read."""
    disk = open_disk()
    disk.add(Conversation("ann", "1"), TOKENS, SavedState(b"state"))
    assert disk.find("ann", [*TOKENS[:150], 999], RULE) == (Reuse(150), disk.states[0])
    assert _read(disk) == b"state"
    disk.close()
    [file] = _files(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert b"ann" not in file.name.encode()
    again = open_disk()
    assert _read(again) == b"state"
    assert again.holds("ann", TOKENS[:10])
    assert not again.holds("ann", [*TOKENS, 1])


def test_no_owner_finds_the_state_of_another(open_disk: Open) -> None:
    """A state is not found for another owner, even with the same tokens."""
    disk = open_disk()
    disk.add(Conversation("ann", "1"), TOKENS, SavedState(b"state"))
    assert disk.find("bob", TOKENS, RULE) == (Reuse(0), None)


def test_another_model_finds_nothing(open_disk: Open) -> None:
    """A state is found only under its own fingerprint."""
    disk = open_disk()
    disk.add(Conversation("ann", "1"), TOKENS, SavedState(b"state"))
    disk.close()
    assert open_disk("other").find("ann", TOKENS, RULE) == (Reuse(0), None)
    assert _read(open_disk()) == b"state"


def test_a_state_replaces_those_that_it_continues(open_disk: Open, tmp_path: Path) -> None:
    """A session has one file, and not one for each turn."""
    disk = open_disk()
    disk.add(Conversation("ann", "1"), TOKENS[:150], SavedState(b"old"))
    disk.add(Conversation("ann", "1"), TOKENS, SavedState(b"new"))
    disk.close()
    assert len(_files(tmp_path)) == 1
    assert _read(open_disk()) == b"new"


def test_the_least_recently_used_files_are_deleted_first(open_disk: Open) -> None:
    """Reading counts as use, and the files of other models are deleted first."""
    other = open_disk("other")
    other.add(Conversation("ann", "1"), TOKENS, SavedState(bytes(300)))
    other.close()
    disk = open_disk(max_bytes=1000)
    for number in range(3):
        disk.add(Conversation("ann", str(number)), [number, *TOKENS], SavedState(bytes(300)))
    disk.close()
    assert open_disk("other").states == []
    disk = open_disk(max_bytes=1000)
    assert _read(disk, tokens=[0, *TOKENS]) == bytes(300)
    disk.add(Conversation("ann", "3"), [3, *TOKENS], SavedState(bytes(300)))
    disk.close()
    assert {state.conversation.session for state in open_disk().states} == {"0", "2", "3"}


def test_a_state_that_is_too_large_is_not_kept(open_disk: Open, tmp_path: Path) -> None:
    """A state above the limit is not kept, and no other is deleted for it."""
    disk = open_disk(max_bytes=100)
    disk.add(Conversation("ann", "1"), TOKENS, SavedState(bytes(90)))
    disk.add(Conversation("ann", "2"), [5, *TOKENS], SavedState(bytes(101)))
    disk.close()
    assert [state.conversation.session for state in open_disk().states] == ["1"]


@pytest.mark.parametrize("session", ["1", None])
def test_forgotten_states_are_deleted(open_disk: Open, tmp_path: Path, session: str | None) -> None:
    """The states of a session, or of an owner, are deleted even before they are written."""
    disk = open_disk()
    disk.add(Conversation("ann", "1"), TOKENS, SavedState(b"state"))
    disk.add(Conversation("bob", "1"), TOKENS, SavedState(b"his"))
    disk.forget("ann", session)
    assert disk.find("ann", TOKENS, RULE) == (Reuse(0), None)
    disk.close()
    assert len(_files(tmp_path)) == 1
    assert [state.conversation.owner for state in open_disk().states] == ["bob"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[:10],
        lambda raw: raw[:-1],
        lambda raw: raw[:-1] + b"x",
        lambda raw: b"x" + raw[1:],
        lambda raw: raw[:8] + b"\xff\xff\xff\xff" + raw[12:],
        lambda raw: raw[:12] + b"\xc1" + raw[13:],
        lambda raw: raw + b"more",
    ],
)
def test_a_bad_file_is_a_miss_and_is_deleted(
    open_disk: Open, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    """A file damaged by a full disk or a crash counts as a miss, and is deleted."""
    disk = open_disk()
    disk.add(Conversation("ann", "1"), TOKENS, SavedState(b"state"))
    disk.close()
    [file] = _files(tmp_path)
    file.write_bytes(damage(file.read_bytes()))
    assert _read(open_disk()) is None
    assert _files(tmp_path) == []


def test_an_incomplete_file_is_deleted(open_disk: Open, tmp_path: Path) -> None:
    """A file that a crash left incomplete is deleted at the next start."""
    open_disk().close()
    (tmp_path / "kv" / "model" / "0123.new").write_bytes(b"LLMDKV1\n")
    open_disk()
    assert _files(tmp_path) == []


def test_an_unusable_folder_causes_one_warning(
    open_disk: Open, tmp_path: Path, warnings: list[str]
) -> None:
    """Without a usable folder, no state is kept, and nothing else fails."""
    (tmp_path / "kv").write_text("a file")
    disk = open_disk()
    disk.add(Conversation("ann", "1"), TOKENS, SavedState(b"state"))
    disk.close()
    assert disk.find("ann", TOKENS, RULE) == (Reuse(0), None)
    assert len(warnings) == 1


def test_a_failed_write_loses_only_the_state(
    open_disk: Open, tmp_path: Path, warnings: list[str]
) -> None:
    """A state that cannot be written causes a warning, and the next worker does not find it."""
    disk = open_disk()
    (tmp_path / "kv" / "model").rmdir()
    disk.add(Conversation("ann", "1"), TOKENS, SavedState(b"state"))
    disk.close()
    assert "cannot be kept" in warnings[0]
    assert open_disk().states == []


def test_a_model_is_distinguished_by_its_content(tmp_path: Path) -> None:
    """A fingerprint depends on the model's content and the given words, not on the file name."""
    one, same, other = (tmp_path / name for name in ("one", "same", "other"))
    one.write_bytes(bytes(1000) + b"a" + bytes(100_000))
    same.write_bytes(one.read_bytes())
    other.write_bytes(bytes(1000) + b"b" + bytes(100_000))
    assert fingerprint_of(one, "f16") == fingerprint_of(same, "f16")
    assert fingerprint_of(one, "f16") != fingerprint_of(other, "f16")
    assert fingerprint_of(one, "f16") != fingerprint_of(one, "q8_0")
