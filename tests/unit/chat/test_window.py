"""Which turns stay in the prompt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.chat.window import num_kept


@given(st.integers(0, 10_000), st.integers(0, 1000))
def test_never_more_turns_are_kept_than_the_window_or_the_session_has(
    num_turns: int, max_turns: int
) -> None:
    """The bound holds for every session and every window, and a short session stays whole."""
    kept = num_kept(num_turns, max_turns)
    assert 0 <= kept <= min(num_turns, max_turns)
    assert num_turns > max_turns or kept == num_turns


@given(st.integers(0, 10_000), st.integers(1, 1000))
def test_at_least_half_of_the_window_stays_filled(num_turns: int, max_turns: int) -> None:
    """Dropping in blocks never costs more than one block beyond what had to go."""
    kept = num_kept(num_turns, max_turns)
    assert kept >= min(num_turns, max_turns - (max_turns + 1) // 2 + 1)


@pytest.mark.parametrize(("max_turns", "block"), [(1, 1), (2, 1), (4, 2), (5, 3), (10, 5)])
def test_the_oldest_turn_kept_stays_the_same_for_a_block_of_turns(
    max_turns: int, block: int
) -> None:
    """The first turn in the prompt moves only every `block` turns, and then by `block`."""
    firsts = [num_turns - num_kept(num_turns, max_turns) for num_turns in range(max_turns + 40)]
    beyond = firsts[max_turns + 1 : max_turns + 1 + block * 4]
    assert firsts[: max_turns + 1] == [0] * (max_turns + 1)
    assert beyond == [block * (1 + index // block) for index in range(block * 4)]


def test_a_window_of_five_drops_three_turns_at_a_time() -> None:
    """The seed's window, turn by turn."""
    assert [num_kept(num, 5) for num in range(11)] == [0, 1, 2, 3, 4, 5, 3, 4, 5, 3, 4]


def test_a_window_of_none_keeps_none() -> None:
    """A profile with `history_turns` 0 has no history in its prompt."""
    assert [num_kept(num, 0) for num in (0, 1, 7)] == [0, 0, 0]
