from __future__ import annotations

import pytest

from llmd.worker.llama.timing import measure_steps
from llmd.worker.scheduling.step_cost import MEASURED_ROWS, StepCost
from tests.support.fake_backend import FakeBackend

IN_FOURS = {1: 4.0, 2: 6.0, 4: 8.0, 7: 14.0, 8: 10.0, 16: 14.0, 32: 24.0}
ROW_BY_ROW = {1: 1.0, 2: 2.0, 4: 4.0, 7: 7.0, 8: 8.0, 16: 16.0, 32: 32.0}


def test_what_was_measured_is_expected() -> None:
    """And between two points what lies between."""
    cost = StepCost(ROW_BY_ROW, 64, can_pad=True)
    assert not cost.pads_to_groups
    assert [cost.step_s(rows) for rows in (1, 3, 7, 12, 32)] == [1, 3, 7, 12, 32]
    assert cost.step_s(64) == 64


def test_rows_beyond_full_groups_cost_as_much_as_was_measured() -> None:
    """Each the third part of what seven rows take longer than four."""
    cost = StepCost(IN_FOURS, 64, can_pad=True)
    assert cost.pads_to_groups
    assert [cost.pass_s(rows) for rows in (1, 2, 4, 5, 8, 12)] == [4, 6, 8, 10, 10, 12]
    assert cost.pass_s(7) == 14


def test_a_machine_that_was_not_measured_far_is_thought_slow() -> None:
    """One row is known at least."""
    cost = StepCost({1: 2.0}, 8, can_pad=True)
    assert not cost.pads_to_groups
    assert cost.step_s(8) == 16


def test_what_rows_take_longer_now_is_learned() -> None:
    """With a long history or beside a neighbour; and forgotten when it is over."""
    cost = StepCost(ROW_BY_ROW, 64, can_pad=True)
    for _ in range(100):
        cost.record(4, 12.0)
    assert cost.step_s(8) == pytest.approx(8 + 8 * 2, rel=0.01)
    for _ in range(100):
        cost.record(4, 3.0)
    assert cost.step_s(8) == pytest.approx(8, rel=0.01)


def test_no_more_rows_are_measured_than_a_step_takes() -> None:
    """Nothing of it stays in the slot."""
    backend = FakeBackend(max_batch_tokens=7)
    assert list(measure_steps(backend, MEASURED_ROWS)) == [1, 2, 4, 7]
    assert backend.resident[0] == []
