"""Statistics of reuse: which KV states are kept."""

from __future__ import annotations

from pathlib import Path

from llmd.worker.kv.conversation import Conversation
from llmd.worker.kv.disk import DiskStates
from llmd.worker.kv.reuse import ReuseStatistics
from tests.unit.worker.kv.test_tiers import FILED, LONG, Harness


def _kept(statistics: ReuseStatistics, times: int, session: str = "", owner: str = "ann") -> int:
    """Count states that lose their slot, and return how many of them to keep."""
    return sum(statistics.count_left(Conversation(owner, session)) for _ in range(times))


def test_states_that_are_never_reused_are_no_longer_kept() -> None:
    """Without reuse, the first 32 states of an owner are kept, and then every eighth."""
    statistics = ReuseStatistics()
    assert _kept(statistics, 32) == 32
    assert _kept(statistics, 80) == 10
    assert not statistics.expects_reuse(Conversation("ann", ""))


def test_after_a_reuse_states_are_kept_again() -> None:
    """Each reuse allows 32 more states to be kept."""
    statistics = ReuseStatistics()
    _kept(statistics, 40)
    statistics.count_reused(Conversation("ann", ""), 100, 120)
    assert statistics.expects_reuse(Conversation("ann", ""))
    assert _kept(statistics, 24) == 24


def test_a_short_common_prefix_is_not_a_reuse() -> None:
    """Fewer than 64 tokens, or less than half of those kept, do not count as a reuse."""
    statistics = ReuseStatistics()
    _kept(statistics, 32)
    statistics.count_reused(Conversation("ann", ""), 63, 63)
    statistics.count_reused(Conversation("ann", ""), 300, 700)
    assert not statistics.expects_reuse(Conversation("ann", ""))


def test_reuse_is_counted_for_each_owner() -> None:
    """An owner without reuse affects no other owner, and states of named sessions are kept."""
    statistics = ReuseStatistics()
    _kept(statistics, 200)
    assert statistics.expects_reuse(Conversation("bob", ""))
    assert _kept(statistics, 20, session="trip") == 20


def test_older_states_count_for_less() -> None:
    """After ten thousand states without reuse, eight reuses suffice to keep the next hundred."""
    statistics = ReuseStatistics()
    _kept(statistics, 10_000)
    for _ in range(8):
        statistics.count_reused(Conversation("ann", ""), 100, 100)
    assert _kept(statistics, 100) == 100


def test_tiers_count_states_that_are_left_and_reused() -> None:
    """Single questions are saved less and less; a conversation that continues is a reuse."""
    harness = Harness(num_slots=1)
    for number in range(60):
        harness.run("ann", [number, *LONG], session="")
    assert len(list(harness.tiers._ram)) == 32 + 4
    harness.run("bob", [1, *LONG], session="")
    harness.run("bob", [1, *LONG, 2], session="")
    assert harness.tiers._reuse.expects_reuse(Conversation("bob", ""))


def test_states_without_reuse_are_not_written_to_the_disk(tmp_path: Path) -> None:
    """States of single questions are written only as long as reuse is expected."""
    warnings: list[str] = []
    disk = DiskStates(tmp_path, "model", 1 << 30, warnings.append)
    harness = Harness(num_slots=1, max_state_bytes=5 * (len(FILED) + 1), disk=disk)
    for number in range(100):
        harness.run("ann", [number, *FILED], session="")
    # Of the first 32 states, the last two were evicted from RAM when reuse was no longer expected.
    assert len(disk.states) == 30
    for number in range(4):
        harness.run("bob", [number, *FILED], session="1")
    assert disk.states[-1].conversation.owner == "bob"
    disk.close()
    assert warnings == []
