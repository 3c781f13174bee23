"""The cost model of steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmd.worker.llama.timing import measure_steps, remembered_steps
from llmd.worker.scheduling.step_cost import MEASURED_ROWS, StepCost
from tests.support.fake_backend import FakeBackend

GROUPED = {1: 4.0, 2: 6.0, 4: 8.0, 7: 14.0, 8: 10.0, 16: 14.0, 32: 24.0}
LINEAR = {1: 1.0, 2: 2.0, 4: 4.0, 7: 7.0, 8: 8.0, 16: 16.0, 32: 32.0}


def test_times_are_interpolated_between_measured_points() -> None:
    """Times are interpolated between the measured numbers of rows, and extrapolated beyond."""
    cost = StepCost(LINEAR, 64, can_pad=True)
    assert not cost.pads_to_groups
    assert [cost.step_s(rows, 0) for rows in (1, 3, 7, 12, 32)] == [1, 3, 7, 12, 32]
    assert cost.step_s(64, 0) == 64


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
    assert cost.step_s(8, 0) == 16


def test_a_row_costs_more_with_a_long_context() -> None:
    """What attention adds follows from the context, and from nothing that was timed later."""
    cost = StepCost(LINEAR, 64, can_pad=True, attention_share=0.001)
    assert cost.step_s(8, 1000) == pytest.approx(16)
    assert cost.step_s(8, 1000) == cost.step_s(8, 1000)


def test_times_are_those_of_an_earlier_worker(tmp_path: Path) -> None:
    """The first worker's times are used by all later ones, so that these compute the same."""
    file = tmp_path / "steps" / "a.json"
    assert remembered_steps(file, LINEAR) == LINEAR
    slower = {rows: 1.2 * took_s for rows, took_s in LINEAR.items()}
    assert remembered_steps(file, slower) == LINEAR


def test_times_of_a_busy_machine_are_replaced(tmp_path: Path) -> None:
    """A measurement that is much faster than what is remembered takes its place."""
    file = tmp_path / "a.json"
    remembered_steps(file, {rows: 2 * took_s for rows, took_s in LINEAR.items()})
    assert remembered_steps(file, LINEAR) == LINEAR
    assert remembered_steps(file, GROUPED) == LINEAR


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b'{"x": 1}', b"\x00" * 100])
def test_a_damaged_file_of_times_is_replaced(tmp_path: Path, content: bytes) -> None:
    """A file that cannot be read counts for nothing."""
    file = tmp_path / "a.json"
    file.write_bytes(content)
    assert remembered_steps(file, LINEAR) == LINEAR
    assert remembered_steps(file, GROUPED) == LINEAR


def test_without_a_folder_the_measured_times_are_used(tmp_path: Path) -> None:
    """A folder that cannot be made costs nothing but the memory of the times."""
    (tmp_path / "steps").write_text("a file")
    assert remembered_steps(tmp_path / "steps" / "a.json", LINEAR) == LINEAR


def test_no_more_rows_are_measured_than_fit_into_a_batch() -> None:
    """Only numbers of rows up to a batch are measured, and the slot is empty afterwards."""
    backend = FakeBackend(max_batch_tokens=7)
    assert list(measure_steps(backend, MEASURED_ROWS)) == [1, 2, 4, 7]
    assert backend.resident[0] == []


def test_a_slow_model_reads_fewer_tokens_in_a_step() -> None:
    """A step stays within the time given, in whole tiles, and has a tile at least."""
    assert StepCost(LINEAR, 384, can_pad=True).rows_within(1000) == 384
    assert StepCost(LINEAR, 384, can_pad=True).rows_within(100) == 96
    assert StepCost({1: 60.0}, 384, can_pad=True).rows_within(10) == 32
    assert StepCost({1: 60.0}, 16, can_pad=True).rows_within(10) == 16
