"""The number of prompt tokens that a step reads while answers wait."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmd.worker.scheduling.prefill_budget import FIRST_READ, MAX_PAUSE_S, MIN_READ, PrefillBudget


def _after(reads: list[tuple[int, float]], max_batch_tokens: int = 4096) -> int:
    budget = PrefillBudget(max_batch_tokens)
    for num_read, step_s in reads:
        budget.record(num_read, step_s)
    return budget.num_tokens


def test_fast_model_reads_more_and_slow_model_less() -> None:
    """The budget is the number of tokens that the model reads in `MAX_PAUSE_S`."""
    assert _after([]) == FIRST_READ
    assert _after([(1000, MAX_PAUSE_S)] * 12) == 992
    assert _after([(FIRST_READ, 2 * MAX_PAUSE_S)] * 12) == FIRST_READ // 2


def test_budget_stays_between_its_minimum_and_the_batch() -> None:
    """However slow or fast the model is, the budget is at least `MIN_READ` and at most a batch."""
    assert _after([(FIRST_READ, 1000.0)] * 12) == MIN_READ
    assert _after([(FIRST_READ, 0.001)] * 12, 512) == 512
    assert _after([(16, 0.001)] * 12, 16) == 16


def test_steps_of_few_tokens_are_ignored() -> None:
    """A step that reads less than half the budget does not change it."""
    assert _after([(FIRST_READ // 2 - 1, 1000.0)] * 12) == FIRST_READ


@given(
    st.lists(st.tuples(st.integers(1, 4096), st.floats(0, 1e6))),
    st.integers(1, 4096),
)
def test_budget_is_valid_after_any_measurements(
    reads: list[tuple[int, float]], max_batch_tokens: int
) -> None:
    """The budget stays within its limits, even when a clock jumps or the machine sleeps."""
    num_tokens = _after(reads, max_batch_tokens)
    assert min(MIN_READ, max_batch_tokens) <= num_tokens <= max_batch_tokens
