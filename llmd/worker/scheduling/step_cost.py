"""How long a step takes by its number of rows: the cost model behind padding and drafts."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

GROUP = 4
"""The number of rows that llama.cpp multiplies with the weights at once, for most quantisations."""

MEASURED_ROWS = (1, 2, GROUP, 2 * GROUP - 1, 2 * GROUP, 4 * GROUP, 8 * GROUP)
"""The numbers of rows that a backend measures at its start."""

_MIN_GAIN = 1.05
"""Pad to a full group only if that is at least 5 % faster."""

_LEARNING_RATE = 1 / 16
"""The weight of the last step in the moving average of what a row costs beyond the measurement."""


class StepCost:
    """The cost model of one model's steps, in seconds. Arithmetic alone.

    The backend measures some numbers of rows at its start, with an empty history. What a row
    takes beyond that now (attention over a long text, a neighbour on the cores) is learned from
    the steps.
    """

    def __init__(self, measured: Mapping[int, float], max_rows: int, *, can_pad: bool) -> None:
        """Take the seconds measured by number of rows. An entry for one row is required.

        `can_pad` says whether rows can be added to a slot and taken back after the step.
        """
        partial, full = measured.get(2 * GROUP - 1, 0.0), measured.get(2 * GROUP, math.inf)
        has_groups = partial > _MIN_GAIN * full
        self.pads_to_groups = can_pad and has_groups
        """Whether a step is faster with a full group of rows than with an incomplete one."""
        self._max_rows = max_rows
        self._measured_s = _table(measured, max_rows, has_groups=has_groups)
        self._extra_row_s = 0.0

    def pass_s(self, num_rows: int) -> float:
        """Return the seconds of one pass over the weights; infinity beyond the largest batch."""
        return self._measured_s[num_rows] if num_rows <= self._max_rows else math.inf

    def step_s(self, num_rows: int) -> float:
        """Return the seconds that a step takes now, padded to a full group where that helps."""
        if self.pads_to_groups and num_rows % GROUP:
            full = min(_full_groups(num_rows), self._max_rows)
            return min(self._exact_step_s(num_rows), self._exact_step_s(full))
        return self._exact_step_s(num_rows)

    def padded_rows(self, num_rows: int) -> int:
        """Return the size of the next full group if it costs less, else `num_rows`."""
        full = _full_groups(num_rows)
        return full if self.pass_s(full) < self.pass_s(num_rows) else num_rows

    def is_faster_with(self, num_rows: int, more_rows: int) -> bool:
        """Return whether `more_rows` take less time than `num_rows`."""
        return self._exact_step_s(num_rows) > self._exact_step_s(more_rows)

    def record(self, num_rows: int, took_s: float) -> None:
        """Learn from a step."""
        extra_s = max(0.0, took_s - self._measured_s[num_rows]) / num_rows
        self._extra_row_s += _LEARNING_RATE * (extra_s - self._extra_row_s)

    def _exact_step_s(self, num_rows: int) -> float:
        return self._measured_s[num_rows] + num_rows * self._extra_row_s


def _full_groups(num_rows: int) -> int:
    return -(-num_rows // GROUP) * GROUP


def _table(measured: Mapping[int, float], max_rows: int, *, has_groups: bool) -> list[float]:
    """Return the seconds of 0 to `max_rows` rows, interpolated between the measured points."""
    points = [rows for rows in sorted(measured) if not has_groups or rows != 2 * GROUP - 1]
    known = [measured[rows] for rows in points]
    last = points[-1]
    table = [
        float(np.interp(rows, points, known)) if rows < last else known[-1] * rows / last
        for rows in range(max_rows + 1)
    ]
    if has_groups:
        # A row beyond the full groups costs a third of what seven rows take longer than four.
        single = (measured[2 * GROUP - 1] - measured[GROUP]) / (GROUP - 1)
        for rows in range(max_rows + 1):
            full, rest = rows // GROUP * GROUP, rows % GROUP
            if rest:
                table[rows] = single * rest + (table[full] if full else measured[1] - single)
    return table
