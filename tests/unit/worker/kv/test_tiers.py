"""Slots, and the KV states that move between slots and RAM."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from llmd.worker.kv.conversation import Conversation
from llmd.worker.kv.disk import DiskStates
from llmd.worker.kv.slots import Slot
from llmd.worker.kv.tiers import MAX_CHECKPOINTS, MIN_FILED_TOKENS, MIN_SAVED_TOKENS, KvTiers
from tests.support.fake_backend import FakeBackend

LONG = list(b"a" * (MIN_SAVED_TOKENS + 6))
FILED = list(b"f" * MIN_FILED_TOKENS)
OTHER = list(b"b" * (MIN_SAVED_TOKENS + 6))
THIRD = list(b"c" * (MIN_SAVED_TOKENS + 6))


class Harness:
    """KV tiers over a fake backend, used as a scheduler uses them."""

    def __init__(
        self,
        num_slots: int = 2,
        *,
        recurrent: bool = False,
        window: int = 0,
        max_state_bytes: int = 1 << 20,
        disk: DiskStates | None = None,
    ) -> None:
        self.backend = FakeBackend(
            max_sequences=num_slots, max_batch_tokens=256, recurrent=recurrent, window=window
        )
        self.tiers = KvTiers(self.backend, max_state_bytes, disk)

    def run(self, owner: str, tokens: list[int], session: str = "1") -> tuple[Slot, int]:
        """Compute tokens in a slot and release it; return it and how many it held before."""
        slot, num_cached = self.begin(owner, tokens, session)
        self.tiers.release(slot, tokens)
        return slot, num_cached

    def in_ram(self, owner: str, tokens: list[int]) -> int:
        """Return how many of these tokens a state in RAM serves."""
        return self.tiers._ram.find(owner, tokens, self.tiers._rule)[0].num_tokens

    def begin(self, owner: str, tokens: list[int], session: str = "1") -> tuple[Slot, int]:
        """Compute tokens in a slot; return it and how many of them it held before."""
        slot, num_cached = self.tiers.acquire(Conversation(owner, session), tokens)
        assert self.backend.resident[slot.index] == tokens[:num_cached]
        for position in range(num_cached, len(tokens)):
            self.backend.add(tokens[position], position, slot.index, output=False)
        self.backend.decode()
        return slot, num_cached


def test_next_turn_of_an_owner_finds_its_slot() -> None:
    """A prompt that continues the tokens of a slot gets that slot and reuses them."""
    harness = Harness()
    first, _ = harness.run("ann", [1, 2, 3])
    harness.run("bob", [1, 2, 3])
    again, num_cached = harness.run("ann", [1, 2, 3, 4])
    assert again is first
    assert num_cached == 3


def test_one_token_is_always_left_to_compute() -> None:
    """The last token of a repeated prompt is computed again, since its logits are needed."""
    harness = Harness()
    harness.run("ann", [1, 2, 3])
    assert harness.run("ann", [1, 2, 3])[1] == 2


def test_slot_of_one_owner_is_never_reused_for_another() -> None:
    """An equal prompt of another owner is computed from its first token, even in the same slot."""
    harness = Harness(num_slots=1)
    harness.run("ann", LONG)
    assert harness.run("bob", LONG)[1] == 0
    assert harness.run("ann", LONG)[1] == len(LONG) - 1


def test_slot_has_one_user_at_a_time() -> None:
    """Two sequences get two slots, and a third gets none until a slot is released."""
    harness = Harness()
    one, _ = harness.begin("ann", [1, 2, 3])
    two, num_cached = harness.begin("ann", [1, 2, 3])
    assert one is not two
    assert num_cached == 0
    assert harness.tiers.num_free == 0
    with pytest.raises(LookupError):
        harness.tiers.acquire(Conversation("ann", "1"), [1])
    harness.tiers.release(one, [1, 2, 3])
    assert harness.tiers.num_free == 1
    assert harness.begin("ann", [1, 2, 3, 4])[0] is one


def test_an_empty_slot_is_taken_before_a_used_one() -> None:
    """A new prompt takes an empty slot, or else the one that was released longest ago."""
    harness = Harness(num_slots=3)
    first, _ = harness.run("ann", [1])
    second, _ = harness.run("ann", [2])
    third, _ = harness.run("ann", [3])
    assert {first.index, second.index, third.index} == {0, 1, 2}
    assert harness.run("ann", [4])[0] is first
    assert harness.run("ann", [5])[0] is second


def test_new_sequence_is_placed_beside_running_ones() -> None:
    """Neighbouring slots are computed together, so an idle one is taken and its state saved."""
    harness = Harness(num_slots=5)
    for number in range(4):
        harness.run("ann", [number, *LONG], session=str(number))
    third, _ = harness.begin("ann", [2, *LONG, 1], session="2")
    assert third.index == 2
    beside, _ = harness.begin("bob", [7])
    assert beside.index == 1
    assert harness.begin("bob", [8])[0].index == 0
    assert harness.run("ann", [1, *LONG, 1], session="1")[1] == 1 + len(LONG)


def test_new_sequence_fills_a_gap_between_running_ones() -> None:
    """A gap is filled even if other slots were idle for longer: it costs a pass in every step."""
    harness = Harness(num_slots=8)
    for number in range(8):
        harness.run("ann", [number, *LONG], session=str(number))
    running = [
        harness.begin("ann", [number, *LONG, 1], session=str(number))[0] for number in range(5)
    ]
    assert [slot.index for slot in running] == [0, 1, 2, 3, 4]
    for slot in running[1:3]:
        harness.tiers.release(slot, slot.tokens)
    assert {harness.begin("bob", [number])[0].index for number in (7, 8)} == {1, 2}


def test_without_states_in_ram_an_empty_slot_comes_before_a_near_one() -> None:
    """Without RAM for states, the tokens of an idle slot would be lost if it were taken."""
    harness = Harness(num_slots=4, max_state_bytes=0)
    for number in range(3):
        harness.run("ann", [number, *LONG], session=str(number))
    assert harness.begin("ann", [0, *LONG, 1], session="0")[0].index == 0
    assert harness.begin("bob", [7])[0].index == 3


def test_slot_is_not_truncated_for_a_short_common_prefix() -> None:
    """A prompt that shares less than half of a slot's tokens gets another slot."""
    harness = Harness()
    kept, _ = harness.run("ann", [1, *LONG])
    other, _ = harness.run("ann", [1, 2], session="2")
    assert other is not kept
    assert harness.run("ann", [1, *LONG, 5])[1] == len(LONG) + 1


def test_session_continues_in_its_own_slot_even_if_most_of_it_is_lost() -> None:
    """A conversation that was shortened does not take the slot of another conversation."""
    harness = Harness()
    other, _ = harness.run("ann", [9, 2], session="2")
    own, _ = harness.run("ann", [1, *LONG], session="1")
    again, num_cached = harness.run("ann", [1, 3], session="1")
    assert again is own
    assert num_cached == 1
    assert other.tokens == [9, 2]


def test_evicted_state_is_saved_and_comes_back_in_any_slot() -> None:
    """A state that loses its slot is saved to RAM, and loaded when its session continues."""
    harness = Harness(num_slots=2)
    harness.run("ann", LONG)
    harness.run("ann", OTHER)
    harness.run("ann", THIRD)
    assert harness.tiers.num_ram_bytes == 4 * len(LONG)
    _, num_cached = harness.run("ann", [*LONG, 5])
    assert num_cached == len(LONG)


def test_few_tokens_are_not_saved() -> None:
    """Fewer tokens than `MIN_SAVED_TOKENS` are not saved to RAM."""
    harness = Harness(num_slots=1)
    harness.run("ann", LONG[: MIN_SAVED_TOKENS - 1])
    harness.run("bob", [1])
    assert harness.tiers.num_ram_bytes == 0


def test_state_that_shares_more_than_the_slot_is_loaded_over_it() -> None:
    """The longest common prefix is used, and what the slot held is saved first."""
    harness = Harness(num_slots=1)
    harness.run("ann", [*LONG, 1, *LONG])
    harness.run("ann", OTHER)
    _, num_cached = harness.run("ann", [*LONG, 1, 2])
    assert num_cached == len(LONG) + 1
    assert harness.in_ram("ann", OTHER) == len(OTHER)


def test_state_that_cannot_be_loaded_is_dropped() -> None:
    """After a failed load, the whole prompt is computed, and the state is not tried again."""
    harness = Harness(num_slots=1)
    harness.run("ann", LONG)
    harness.run("ann", [1])
    harness.backend.loads = False
    assert harness.run("ann", [*LONG, 5])[1] == 0
    assert harness.tiers.num_ram_bytes == 0


def test_state_that_cannot_be_loaded_may_have_been_evicted_meanwhile() -> None:
    """Saving what the slot held can evict the very state that is being loaded."""
    harness = Harness(num_slots=1, max_state_bytes=4 * len(LONG) + 1)
    harness.run("ann", LONG)
    harness.run("ann", OTHER)
    harness.backend.loads = False
    assert harness.run("ann", [*LONG, 5])[1] == 0
    assert harness.in_ram("ann", OTHER) == len(OTHER)


def test_recurrent_model_reuses_only_whole_slots() -> None:
    """A recurrent model continues from all tokens of a slot, or from none."""
    harness = Harness(num_slots=1, recurrent=True)
    harness.run("ann", LONG)
    assert harness.run("ann", [*LONG, 5, 6])[1] == len(LONG)
    assert harness.run("ann", [*LONG, 7])[1] == 0


def test_forget_empties_the_slots_and_states_of_a_session() -> None:
    """A forgotten session finds nothing, and other sessions and owners find their states."""
    harness = Harness(num_slots=3)
    harness.run("ann", LONG, "1")
    harness.run("ann", OTHER, "2")
    harness.run("bob", LONG, "1")
    harness.tiers.forget("ann", "1")
    assert harness.backend.resident.count([]) == 1
    assert harness.run("ann", LONG)[1] == 0
    assert harness.run("ann", OTHER)[1] == len(OTHER) - 1
    assert harness.run("bob", LONG)[1] == len(LONG) - 1


def test_forget_drops_saved_states_too() -> None:
    """Forgetting the sessions of an owner drops the owner's states in RAM too."""
    harness = Harness(num_slots=1)
    harness.run("ann", LONG, "1")
    harness.run("ann", OTHER, "2")
    harness.tiers.forget("ann", None)
    assert harness.tiers.num_ram_bytes == 0
    assert harness.backend.resident == [[]]


def test_session_forgotten_while_it_runs_leaves_nothing_behind() -> None:
    """`forget` leaves a busy slot unchanged, and the slot is emptied when it is released."""
    harness = Harness(num_slots=2)
    slot, _ = harness.begin("ann", LONG, "1")
    harness.tiers.forget("ann", "1")
    assert harness.backend.resident[slot.index] == LONG
    harness.tiers.release(slot, LONG)
    assert harness.backend.resident[slot.index] == []
    assert harness.run("ann", LONG, "1")[1] == 0
    assert harness.run("ann", LONG, "1")[1] == len(LONG) - 1


def test_without_room_in_ram_no_state_is_copied() -> None:
    """With a limit of 0 bytes, no state is copied out of the KV memory."""

    class CountingBackend(FakeBackend):
        num_saved = 0

        def save(self, slot: int) -> bytes:
            self.num_saved += 1
            return super().save(slot)

    harness = Harness(num_slots=1, max_state_bytes=0)
    harness.backend = backend = CountingBackend(max_sequences=1, max_batch_tokens=256)
    harness.tiers = KvTiers(backend, 0)
    harness.run("ann", LONG)
    harness.run("ann", OTHER)
    assert backend.num_saved == 0


# Checkpoints


def _run_with_checkpoints(harness: Harness, tokens: list[int], *points: int) -> None:
    """Compute tokens in a slot, with a checkpoint after each of these numbers of tokens."""
    slot, num_cached = harness.tiers.acquire(Conversation("ann", "1"), tokens)
    for point in (*points, len(tokens)):
        for position in range(num_cached, point):
            harness.backend.add(tokens[position], position, slot.index, output=False)
        harness.backend.decode()
        num_cached = point
        if point < len(tokens):
            harness.tiers.add_checkpoint(slot, point)
    harness.tiers.release(slot, tokens)


@pytest.mark.parametrize("others", [0, 1])
def test_recurrent_model_goes_on_from_a_checkpoint(others: int) -> None:
    """The same prompt again is warm up to the checkpoint, in its slot and after an eviction."""
    harness = Harness(num_slots=1, recurrent=True)
    _run_with_checkpoints(harness, [*LONG, 5, 6, 7], len(LONG), len(LONG) + 2)
    for number in range(others):
        harness.run("bob", [number, *OTHER])
    assert harness.run("ann", [*LONG, 5, 6, 9])[1] == len(LONG) + 2
    assert harness.run("ann", [*LONG, 8])[1] == len(LONG)
    assert harness.run("ann", [*LONG[:9], 8])[1] == 0


def test_checkpoints_come_back_from_the_disk(tmp_path: Path) -> None:
    """After a restart, the same prompt again is warm up to its checkpoint."""
    disk = DiskStates(tmp_path, "model", 1 << 20, print)
    harness = Harness(num_slots=1, recurrent=True, disk=disk)
    _run_with_checkpoints(harness, [*FILED, 5, 6, 7], len(FILED))
    assert harness.tiers.save_one()
    disk.close()
    harness = Harness(
        num_slots=1, recurrent=True, disk=DiskStates(tmp_path, "model", 1 << 20, print)
    )
    assert harness.run("ann", [*FILED, 8, 9])[1] == len(FILED)


def test_windowed_state_from_ram_serves_a_prefix_only_by_a_checkpoint() -> None:
    """In its slot all cells are there; a copy lacks those outside of the window."""
    harness = Harness(num_slots=1, window=8)
    _run_with_checkpoints(harness, [*LONG, *OTHER], len(LONG))
    assert harness.run("ann", [*LONG, *OTHER[:30], 9])[1] == len(LONG) + 30
    _run_with_checkpoints(harness, [*THIRD, *OTHER], len(THIRD))
    harness.run("bob", OTHER)
    assert harness.run("ann", [*THIRD, *OTHER[:30], 9])[1] == len(THIRD)


def test_checkpoints_are_bounded() -> None:
    """The oldest checkpoints but the first are dropped when a slot has many of them."""
    harness = Harness(num_slots=1, recurrent=True)
    points = list(range(10, 130, 10))
    _run_with_checkpoints(harness, list(range(140)), *points)
    kept = [one.num_tokens for one in next(iter(harness.tiers._slots)).checkpoints]
    assert kept == [10, *points[-MAX_CHECKPOINTS + 1 :]]


# Faults of the disk


def test_damaged_file_loses_no_other_state(tmp_path: Path) -> None:
    """If the file of a state is damaged, the next best state is used."""
    disk = DiskStates(tmp_path, "model", 1 << 20, lambda _text: None)
    harness = Harness(num_slots=2, disk=disk)
    harness.run("ann", [*FILED, *FILED[:100]])
    assert harness.tiers.save_one()
    disk.close()
    [file] = tmp_path.rglob("*.kv")
    file.write_bytes(file.read_bytes()[:-1])
    again = DiskStates(tmp_path, "model", 1 << 20, lambda _text: None)
    harness = Harness(num_slots=1, disk=again)
    harness.run("ann", FILED[:90])
    assert harness.run("ann", [*FILED, *FILED[:100], 1])[1] == 90
    assert again.states == []


def test_state_that_the_disk_refuses_stops_no_other(tmp_path: Path) -> None:
    """A state larger than the limit is passed over when idle states are saved."""
    disk = DiskStates(tmp_path, "model", 4 * len(FILED) + 100, print)
    harness = Harness(disk=disk)
    harness.run("ann", [*FILED, *FILED[:60]], session="1")
    harness.run("ann", [7, *FILED], session="2")
    assert harness.tiers.save_one()
    assert [state.conversation.session for state in disk.states] == ["2"]
    assert not harness.tiers.save_one()
    disk.close()


def test_worker_goes_on_without_its_cache_folder(tmp_path: Path) -> None:
    """A cache folder that is deleted while the worker runs costs the states, and nothing else."""
    disk = DiskStates(tmp_path / "kv", "model", 1 << 20, lambda _text: None)
    harness = Harness(disk=disk)
    shutil.rmtree(tmp_path / "kv")
    harness.run("ann", FILED)
    harness.tiers.save_one()
    disk.close()
    assert harness.run("ann", [*FILED, 1])[1] == len(FILED)


def test_state_too_large_for_ram_goes_to_the_disk(tmp_path: Path) -> None:
    """A state that loses its slot is written if RAM has no room for it at all."""
    disk = DiskStates(tmp_path, "model", 1 << 20, print)
    harness = Harness(num_slots=1, max_state_bytes=100, disk=disk)
    harness.run("ann", FILED)
    harness.run("bob", OTHER)
    assert [state.conversation.owner for state in disk.states] == ["ann"]
    disk.close()
