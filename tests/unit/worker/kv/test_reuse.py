from __future__ import annotations

from pathlib import Path

from llmd.worker.kv.conversation import Conversation
from llmd.worker.kv.disk import DiskStates
from llmd.worker.kv.reuse import ReuseStatistics
from tests.unit.worker.kv.test_tiers import LONG, Harness


def _kept(statistics: ReuseStatistics, times: int, session: str = "", owner: str = "ann") -> int:
    return sum(statistics.count_left(Conversation(owner, session)) for _ in range(times))


def test_what_nobody_asks_for_again_is_no_longer_kept() -> None:
    """A program of single questions pays for some tries, and for a sample from then on."""
    statistics = ReuseStatistics()
    assert _kept(statistics, 32) == 32
    assert _kept(statistics, 80) == 10
    assert not statistics.expects_reuse(Conversation("ann", ""))


def test_what_is_found_again_is_kept_on() -> None:
    """One of thirty-two is enough, and brings it back."""
    statistics = ReuseStatistics()
    _kept(statistics, 40)
    statistics.count_reused("ann", 100, 120)
    assert statistics.expects_reuse(Conversation("ann", ""))
    assert _kept(statistics, 24) == 24


def test_a_common_beginning_is_not_found_again() -> None:
    """Templates and instructions stand before every prompt of a program."""
    statistics = ReuseStatistics()
    _kept(statistics, 32)
    statistics.count_reused("ann", 63, 63)
    statistics.count_reused("ann", 300, 700)
    assert not statistics.expects_reuse(Conversation("ann", ""))


def test_habits_are_those_of_one_owner() -> None:
    """And a session that has a name is kept whatever its owner does else."""
    statistics = ReuseStatistics()
    _kept(statistics, 200)
    assert statistics.expects_reuse(Conversation("bob", ""))
    assert _kept(statistics, 20, session="trip") == 20


def test_habits_change() -> None:
    """A long time of single questions does not count for ever."""
    statistics = ReuseStatistics()
    _kept(statistics, 10_000)
    for _ in range(8):
        statistics.count_reused("ann", 100, 100)
    assert _kept(statistics, 100) == 100


def test_slots_count_what_is_left_and_what_is_found() -> None:
    """Single questions stop being saved when they lose their slot; a conversation goes on warm."""
    harness = Harness(num_slots=1)
    for number in range(60):
        harness.run("ann", [number, *LONG], session="")
    assert len(list(harness.tiers._ram)) == 32 + 4
    harness.run("bob", [1, *LONG], session="")
    harness.run("bob", [1, *LONG, 2], session="")
    assert harness.tiers._reuse.expects_reuse(Conversation("bob", ""))


def test_states_without_use_do_not_go_to_the_disk(tmp_path: Path) -> None:
    """States of single questions are written only as long as reuse is expected."""
    warnings: list[str] = []
    disk = DiskStates(tmp_path, "model", 1 << 30, warnings.append)
    harness = Harness(num_slots=1, max_state_bytes=5 * (len(LONG) + 1), disk=disk)
    for number in range(100):
        harness.run("ann", [number, *LONG], session="")
    # One of the 32 tried was still in RAM when reuse was no longer expected, and one came last.
    assert len(disk.states) == 30
    for number in range(4):
        harness.run("bob", [number, *LONG], session="1")
    assert disk.states[-1].conversation.owner == "bob"
    disk.close()
    assert warnings == []
