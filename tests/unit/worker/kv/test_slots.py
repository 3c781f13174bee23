from __future__ import annotations

import pytest

from llmd.worker.kv.ram import States
from llmd.worker.kv.slots import MIN_SAVED_TOKENS, Slot, Slots
from tests.support.fake_backend import FakeBackend

LONG = list(b"a" * (MIN_SAVED_TOKENS + 6))
OTHER = list(b"b" * (MIN_SAVED_TOKENS + 6))
THIRD = list(b"c" * (MIN_SAVED_TOKENS + 6))


class House:
    """Slots over a fake KV memory, and the sequences that would use them."""

    def __init__(
        self, num_slots: int = 2, *, recurrent: bool = False, max_state_bytes: int = 1 << 20
    ) -> None:
        self.backend = FakeBackend(
            max_sequences=num_slots, max_batch_tokens=256, recurrent=recurrent
        )
        self.states = States(max_state_bytes)
        self.slots = Slots(self.backend, self.states)

    def run(self, owner: str, tokens: list[int], session: str = "1") -> tuple[Slot, int]:
        """Compute the tokens in a slot and give it back: (slot, how many it held before)."""
        slot, num_cached = self.begin(owner, tokens, session)
        self.slots.release(slot, tokens)
        return slot, num_cached

    def begin(self, owner: str, tokens: list[int], session: str = "1") -> tuple[Slot, int]:
        slot, num_cached = self.slots.acquire(owner, session, tokens)
        assert self.backend.resident[slot.index] == tokens[:num_cached]
        for position in range(num_cached, len(tokens)):
            self.backend.add(tokens[position], position, slot.index, output=False)
        self.backend.decode()
        return slot, num_cached


def test_next_turn_of_an_owner_finds_its_slot() -> None:
    """A prompt that goes on from what a slot holds is given that slot and its tokens."""
    house = House()
    first, _ = house.run("ann", [1, 2, 3])
    house.run("bob", [1, 2, 3])
    again, num_cached = house.run("ann", [1, 2, 3, 4])
    assert again is first
    assert num_cached == 3


def test_one_token_is_always_left_to_compute() -> None:
    """The same prompt again lacks its last token, whose logits are needed."""
    house = House()
    house.run("ann", [1, 2, 3])
    assert house.run("ann", [1, 2, 3])[1] == 2


def test_slot_of_one_owner_is_never_reused_for_another() -> None:
    """An equal prompt of another owner begins at its first token, even in the same slot."""
    house = House(num_slots=1)
    house.run("ann", LONG)
    assert house.run("bob", LONG)[1] == 0
    assert house.run("ann", LONG)[1] == len(LONG) - 1


def test_slot_has_one_user_at_a_time() -> None:
    """Two sequences get two slots, a third gets none until one is given back."""
    house = House()
    one, _ = house.begin("ann", [1, 2, 3])
    two, num_cached = house.begin("ann", [1, 2, 3])
    assert one is not two
    assert num_cached == 0
    assert house.slots.num_free == 0
    with pytest.raises(LookupError):
        house.slots.acquire("ann", "1", [1])
    house.slots.release(one, [1, 2, 3])
    assert house.slots.num_free == 1
    assert house.begin("ann", [1, 2, 3, 4])[0] is one


def test_empty_slot_comes_before_one_that_is_worth_something() -> None:
    """A new prompt takes an unused slot, then the one that was given back longest ago."""
    house = House(num_slots=3)
    first, _ = house.run("ann", [1])
    second, _ = house.run("ann", [2])
    third, _ = house.run("ann", [3])
    assert {first.index, second.index, third.index} == {0, 1, 2}
    assert house.run("ann", [4])[0] is first
    assert house.run("ann", [5])[0] is second


def test_new_sequence_goes_beside_those_that_run() -> None:
    """Neighbours are computed together; what an idle one held is kept in RAM."""
    house = House(num_slots=5)
    for number in range(4):
        house.run("ann", [number, *LONG], session=str(number))
    third, _ = house.begin("ann", [2, *LONG, 1], session="2")
    assert third.index == 2
    beside, _ = house.begin("bob", [7])
    assert beside.index == 1
    assert house.begin("bob", [8])[0].index == 0
    assert house.run("ann", [1, *LONG, 1], session="1")[1] == 1 + len(LONG)


def test_new_sequence_fills_a_gap_between_those_that_run() -> None:
    """However long the slots beyond have been idle: a gap is a pass of its own in every step."""
    house = House(num_slots=8)
    for number in range(8):
        house.run("ann", [number, *LONG], session=str(number))
    running = [
        house.begin("ann", [number, *LONG, 1], session=str(number))[0] for number in range(5)
    ]
    assert [slot.index for slot in running] == [0, 1, 2, 3, 4]
    for slot in running[1:3]:
        house.slots.release(slot, slot.tokens)
    assert {house.begin("bob", [number])[0].index for number in (7, 8)} == {1, 2}


def test_without_states_in_ram_an_empty_slot_comes_before_a_near_one() -> None:
    """There, what an idle slot holds would be lost."""
    house = House(num_slots=4, max_state_bytes=0)
    for number in range(3):
        house.run("ann", [number, *LONG], session=str(number))
    assert house.begin("ann", [0, *LONG, 1], session="0")[0].index == 0
    assert house.begin("bob", [7])[0].index == 3


def test_slot_with_much_to_lose_is_not_cut_for_a_short_beginning() -> None:
    """A prompt that shares less than half of a slot's tokens leaves it for its own session."""
    house = House()
    kept, _ = house.run("ann", [1, *LONG])
    other, _ = house.run("ann", [1, 2], session="2")
    assert other is not kept
    assert house.run("ann", [1, *LONG, 5])[1] == len(LONG) + 1


def test_session_goes_on_in_its_own_slot_even_if_most_of_it_is_lost() -> None:
    """A conversation that was cut short leaves alone what other conversations have warm."""
    house = House()
    other, _ = house.run("ann", [9, 2], session="2")
    own, _ = house.run("ann", [1, *LONG], session="1")
    again, num_cached = house.run("ann", [1, 3], session="1")
    assert again is own
    assert num_cached == 1
    assert other.tokens == [9, 2]


def test_evicted_state_is_saved_and_comes_back_in_any_slot() -> None:
    """What loses its slot is kept in RAM and loaded when its session goes on."""
    house = House(num_slots=2)
    house.run("ann", LONG)
    house.run("ann", OTHER)
    house.run("ann", THIRD)
    assert house.states.num_bytes == 4 * len(LONG)
    _, num_cached = house.run("ann", [*LONG, 5])
    assert num_cached == len(LONG)


def test_few_tokens_are_not_worth_a_state() -> None:
    """Less than the least number of tokens is computed again."""
    house = House(num_slots=1)
    house.run("ann", LONG[: MIN_SAVED_TOKENS - 1])
    house.run("bob", [1])
    assert house.states.num_bytes == 0


def test_state_that_shares_more_than_the_slot_is_loaded_over_it() -> None:
    """The longest beginning wins, wherever it is, and what the slot held is saved first."""
    house = House(num_slots=1)
    house.run("ann", [*LONG, 1, *LONG])
    house.run("ann", OTHER)
    _, num_cached = house.run("ann", [*LONG, 1, 2])
    assert num_cached == len(LONG) + 1
    assert house.states.find("ann", OTHER)[0] == len(OTHER)


def test_state_that_cannot_be_loaded_is_dropped_and_the_prompt_computed() -> None:
    """A failed load leaves a clean slot, and the same state is not tried again."""
    house = House(num_slots=1)
    house.run("ann", LONG)
    house.run("ann", [1])
    house.backend.loads = False
    assert house.run("ann", [*LONG, 5])[1] == 0
    assert house.states.num_bytes == 0


def test_state_that_cannot_be_loaded_may_have_been_pushed_out_meanwhile() -> None:
    """What the slot held can replace the very state that is being loaded over it."""
    house = House(num_slots=1)
    house.states = States(4 * len(LONG) + 1)
    house.slots = Slots(house.backend, house.states)
    house.run("ann", LONG)
    house.run("ann", OTHER)
    house.backend.loads = False
    assert house.run("ann", [*LONG, 5])[1] == 0
    assert house.states.find("ann", OTHER)[0] == len(OTHER)


def test_recurrent_model_reuses_only_what_it_need_not_cut() -> None:
    """A model without earlier states goes on from a whole slot and begins anew otherwise."""
    house = House(num_slots=1, recurrent=True)
    house.run("ann", LONG)
    assert house.run("ann", [*LONG, 5, 6])[1] == len(LONG)
    assert house.run("ann", [*LONG, 7])[1] == 0


def test_forget_empties_the_slots_and_states_of_a_session() -> None:
    """A forgotten session finds nothing, other sessions and owners find theirs."""
    house = House(num_slots=3)
    house.run("ann", LONG, "1")
    house.run("ann", OTHER, "2")
    house.run("bob", LONG, "1")
    house.slots.forget("ann", "1")
    assert house.backend.resident.count([]) == 1
    assert house.run("ann", LONG)[1] == 0
    assert house.run("ann", OTHER)[1] == len(OTHER) - 1
    assert house.run("bob", LONG)[1] == len(LONG) - 1


def test_forget_drops_saved_states_too() -> None:
    """A state in RAM goes with its session."""
    house = House(num_slots=1)
    house.run("ann", LONG, "1")
    house.run("ann", OTHER, "2")
    house.slots.forget("ann", None)
    assert house.states.num_bytes == 0
    assert house.backend.resident == [[]]


def test_session_forgotten_while_it_runs_leaves_nothing_behind() -> None:
    """A slot in use is left alone by forget, and emptied when it is given back."""
    house = House(num_slots=2)
    slot, _ = house.begin("ann", LONG, "1")
    house.slots.forget("ann", "1")
    assert house.backend.resident[slot.index] == LONG
    house.slots.release(slot, LONG)
    assert house.backend.resident[slot.index] == []
    assert house.run("ann", LONG, "1")[1] == 0
    assert house.run("ann", LONG, "1")[1] == len(LONG) - 1
