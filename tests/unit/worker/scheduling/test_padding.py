"""Padding: which idle slots and which tails are added to a step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.worker.scheduling.padding import MAX_TAIL, padding_slots, tail_lengths
from llmd.worker.scheduling.step_cost import GROUP, StepCost
from tests.support.fake_backend import GROUPED_STEPS_S, parrot
from tests.support.scheduler_harness import LONG_ANSWER, Harness

COST = StepCost(GROUPED_STEPS_S, 512, can_pad=True)


def _cost(slots: list[int], num_each: int) -> float:
    """Return the cost of a step, in which neighbouring slots are one pass."""
    runs: list[int] = []
    for index, slot in enumerate(slots):
        if index and slot == slots[index - 1] + 1:
            runs[-1] += num_each
        else:
            runs.append(num_each)
    return sum(map(COST.pass_s, runs))


@given(
    st.sets(st.integers(0, 11), min_size=1), st.sets(st.integers(0, 11)), st.sampled_from([1, 2, 4])
)
def test_padding_makes_one_run_that_costs_less(
    slots: set[int], idle: set[int], num_each: int
) -> None:
    """Padding joins the slots to one run, and only if that run costs less."""
    used, free = sorted(slots), idle - slots
    padding = padding_slots(COST, used, free, num_each)
    assert set(padding) <= free
    if padding:
        whole = sorted([*used, *padding])
        assert whole == list(range(whole[0], whole[-1] + 1))
        assert _cost(whole, num_each) < _cost(used, num_each)


@pytest.mark.parametrize(
    ("slots", "padding"),
    [
        ([0], []),
        ([0, 1], []),
        ([0, 1, 2, 3], []),
        ([0, 1, 2, 3, 4, 5], [6, 7]),
        ([0, 1, 2, 3, 4, 5, 6], [7]),
        ([1, 2, 3, 4, 5, 6, 7], [0]),
        ([0, 1, 2, 4, 5, 6, 7], [3]),
        ([0, 3, 7], [1, 2, 4, 5, 6]),
        ([0, 7], []),
        ([0, 2], []),
    ],
)
def test_gaps_are_padded_where_that_is_cheaper(slots: list[int], padding: list[int]) -> None:
    """Two passes of one row are not padded, since they cost as much as one pass of four rows."""
    assert padding_slots(COST, slots, set(range(8)) - set(slots)) == padding


def test_busy_slots_are_not_padded() -> None:
    """A gap is not padded if it contains a slot that is not idle."""
    assert padding_slots(COST, [0, 1, 2, 3, 4, 5, 6], {8, 9}) == []
    assert padding_slots(COST, [0, 1, 2, 3, 5, 6, 7], set()) == []


@given(st.lists(st.integers(1, 400), min_size=1, max_size=8))
def test_tails_end_a_group_and_are_short(lengths: list[int]) -> None:
    """A tail makes a chunk as long as the longest, or completes its last group."""
    tails = tail_lengths(COST, lengths)
    assert all(0 <= num <= MAX_TAIL for num in tails)
    for length, num in zip(lengths, tails, strict=True):
        if num:
            longest = max(length + num for length, num in zip(lengths, tails, strict=True))
            assert (length + num) % GROUP == 0 or length + num == longest


def _eight(num_running: int, *, pads_to_groups: bool) -> Harness:
    """Run eight requests, of which `num_running` still decode."""
    harness = Harness(max_sequences=8, max_batch_tokens=64, pads_to_groups=pads_to_groups)
    for number in range(8):
        max_tokens = 60 if number < num_running else 2
        harness.submit(f"{number}:", session=str(number), max_tokens=max_tokens)
    harness.step(4)
    return harness


def test_seven_answers_are_computed_in_eight_rows_where_that_is_faster() -> None:
    """Seven answers are padded with an idle slot, which holds the same tokens afterwards."""
    harness = _eight(7, pads_to_groups=True)
    held = [list(tokens) for tokens in harness.backend.resident]
    harness.step()
    assert harness.backend.steps[-1] == dict.fromkeys(range(8), 1)
    assert harness.backend.resident[7] == held[7]
    assert [len(tokens) for tokens in harness.backend.resident[:7]] == [
        len(tokens) + 1 for tokens in held[:7]
    ]
    assert harness.beat().num_step_tokens == 7
    harness = _eight(7, pads_to_groups=False)
    harness.step()
    assert harness.backend.steps[-1] == dict.fromkeys(range(7), 1)


def test_session_continues_from_a_slot_that_was_padded() -> None:
    """Padding is not taken for tokens of the session that the slot belongs to."""
    harness = _eight(7, pads_to_groups=True)
    harness.step(5)
    again = harness.submit("7:ab:", session="7")
    harness.run()
    assert harness.started(again).num_cached_tokens == len("7:a")
    assert harness.text(again) == LONG_ANSWER


def test_prompt_is_padded_to_a_full_group() -> None:
    """The padding behind a prompt is removed before the answer begins."""
    harness = Harness(pads_to_groups=True)
    request = harness.submit("12345:")
    harness.step()
    assert harness.backend.steps == [{0: 8}]
    assert len(harness.backend.resident[0]) == 6
    assert harness.beat().num_step_tokens == 6
    harness.run()
    assert harness.text(request) == LONG_ANSWER


def test_prompts_of_similar_length_are_read_in_one_pass() -> None:
    """Padding the shorter prompts costs less than a pass for the rest of the longer ones."""
    harness = Harness(max_batch_tokens=64, pads_to_groups=True)
    for number, length in enumerate([13, 16, 11]):
        harness.submit("x" * (length - 1) + ":", session=str(number))
    harness.step()
    assert harness.backend.steps == [{0: 16, 1: 16, 2: 16}]


def test_chunk_of_a_long_prompt_ends_with_a_full_group() -> None:
    """A chunk of a long prompt is shortened to full groups, since more steps follow anyway."""
    harness = Harness(max_batch_tokens=30, pads_to_groups=True)
    harness.submit("x" * 60 + ":")
    harness.step(3)
    assert harness.backend.steps == [{0: 28}, {0: 28}, {0: 5}]


def _drafting(second: str) -> Harness:
    """Run four requests, of which the second ends soon and the others have drafts."""
    harness = Harness(
        next_token=parrot,
        max_draft_tokens=3,
        num_context_tokens=200,
        max_batch_tokens=256,
        pads_to_groups=True,
    )
    harness.submit("hi:", session="1", max_tokens=150)
    harness.step(2)
    harness.submit(second, session="2", max_tokens=3)
    harness.step()
    for session in ("3", "4"):
        harness.submit("hi:", session=session, max_tokens=150)
    harness.step(12)
    return harness


def test_idle_slots_are_padded_to_the_length_of_drafts() -> None:
    """An idle slot is padded with as many tokens as the others take, so all four are one pass."""
    harness = _drafting("ho:")
    assert harness.backend.steps[-1] == {0: 4, 1: 4, 2: 4, 3: 4}
    assert harness.beat().num_step_tokens == 12


def test_slot_without_room_is_not_padded() -> None:
    """An idle slot is not padded if its tokens and the padding exceed the context."""
    harness = _drafting("x" * 196 + ":")
    assert harness.backend.steps[-1] == {0: 4, 2: 4, 3: 4}
