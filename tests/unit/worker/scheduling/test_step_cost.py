"""The cost model of steps."""

from __future__ import annotations

import pytest

from llmd.worker.llama.timing import measure_steps
from llmd.worker.scheduling.step_cost import MEASURED_ROWS, StepCost
from tests.support.fake_backend import FakeBackend

GROUPED = {1: 4.0, 2: 6.0, 4: 8.0, 7: 14.0, 8: 10.0, 16: 14.0, 32: 24.0}
LINEAR = {1: 1.0, 2: 2.0, 4: 4.0, 7: 7.0, 8: 8.0, 16: 16.0, 32: 32.0}


def test_times_are_interpolated_between_measured_points() -> None:
    """Times are interpolated between the measured numbers of rows, and extrapolated beyond."""
    cost = StepCost(LINEAR, 64, can_pad=True)
    assert not cost.pads_to_groups
    assert [cost.step_s(rows) for rows in (1, 3, 7, 12, 32)] == [1, 3, 7, 12, 32]
    assert cost.step_s(64) == 64


def test_rows_beyond_full_groups_cost_as_much_as_measured() -> None:
    """A row beyond the full groups costs a third of what seven rows take longer than four."""
    cost = StepCost(GROUPED, 64, can_pad=True)
    assert cost.pads_to_groups
    assert [cost.pass_s(rows) for rows in (1, 2, 4, 5, 8, 12)] == [4, 6, 8, 10, 10, 12]
    assert cost.pass_s(7) == 14


def test_with_one_measurement_every_row_costs_as_much() -> None:
    """If only one row was measured, the time of a step is proportional to its rows."""
    cost = StepCost({1: 2.0}, 8, can_pad=True)
    assert not cost.pads_to_groups
    assert cost.step_s(8) == 16


def test_a_longer_time_of_rows_is_learned() -> None:
    """Rows that take longer than measured raise the estimate until they are faster again."""
    cost = StepCost(LINEAR, 64, can_pad=True)
    for _ in range(100):
        cost.record(4, 12.0)
    assert cost.step_s(8) == pytest.approx(8 + 8 * 2, rel=0.01)
    for _ in range(100):
        cost.record(4, 3.0)
    assert cost.step_s(8) == pytest.approx(8, rel=0.01)


def test_no_more_rows_are_measured_than_fit_into_a_batch() -> None:
    """Only numbers of rows up to a batch are measured, and the slot is empty afterwards."""
    backend = FakeBackend(max_batch_tokens=7)
    assert list(measure_steps(backend, MEASURED_ROWS)) == [1, 2, 4, 7]
    assert backend.resident[0] == []
