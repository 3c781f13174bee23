"""How long a step takes by its number of rows: the cost model behind padding and drafts."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

GROUP = 4
"""The number of rows that llama.cpp multiplies with the weights at once, for most quantisations."""

TILE_ROWS = 32
"""AMX multiplies tiles of 32 rows, and computes a partly filled tile whole."""

MEASURED_ROWS = (1, 2, GROUP, 2 * GROUP - 1, 2 * GROUP, 4 * GROUP, 8 * GROUP)
"""The numbers of rows that a backend measures at its start."""

_MIN_GAIN = 1.05
"""Pad to a full group only if that is at least 5 % faster."""


class StepCost:
    """The cost model of one model's steps, in seconds. Arithmetic alone.

    The backend hands over what some numbers of rows took with an empty history. What attention
    adds over a long text follows from the model's shape. Nothing here changes with the clock:
    the same request, alone, is computed by the same batches, and so to the same text.
    """

    def __init__(
        self,
        measured: Mapping[int, float],
        max_rows: int,
        *,
        can_pad: bool,
        attention_share: float = 0.0,
    ) -> None:
        """Take the seconds measured by number of rows. An entry for one row is required.

        `can_pad` says whether rows can be added to a slot and taken back after the step;
        `attention_share` how much more a row costs with each token before it, as a share.
        """
        partial, full = measured.get(2 * GROUP - 1, 0.0), measured.get(2 * GROUP, math.inf)
        has_groups = partial > _MIN_GAIN * full
        self.pads_to_groups = can_pad and has_groups
        """Whether a step is faster with a full group of rows than with an incomplete one."""
        self._max_rows = max_rows
        self._measured_s = _table(measured, max_rows, has_groups=has_groups)
        # The cost of a further row in a large step, where the arithmetic counts.
        self._row_s = self._measured_s[max_rows] / max_rows
        self._attention_share = attention_share

    def pass_s(self, num_rows: int) -> float:
        """Return the seconds of one pass over the weights; infinity beyond the largest batch."""
        return self._measured_s[num_rows] if num_rows <= self._max_rows else math.inf

    def step_s(self, num_rows: int, num_context: int) -> float:
        """Return the seconds of a step, padded to a full group where that helps.

        Before each row there are `num_context` tokens.
        """
        if self.pads_to_groups and num_rows % GROUP:
            full = min(_full_groups(num_rows), self._max_rows)
            return min(self._exact_s(num_rows, num_context), self._exact_s(full, num_context))
        return self._exact_s(num_rows, num_context)

    def rows_within(self, seconds: float) -> int:
        """Return how many rows a step may have to take at most so long, at least a tile of AMX."""
        whole_s = self._measured_s[self._max_rows]
        if whole_s <= seconds:
            return self._max_rows
        num_rows = int(self._max_rows * seconds / whole_s) // TILE_ROWS * TILE_ROWS
        return min(max(num_rows, TILE_ROWS), self._max_rows)

    def padded_rows(self, num_rows: int) -> int:
        """Return the size of the next full group if it costs less, else `num_rows`."""
        full = _full_groups(num_rows)
        return full if self.pass_s(full) < self.pass_s(num_rows) else num_rows

    def is_faster_with(self, num_rows: int, more_rows: int) -> bool:
        """Return whether `more_rows` take less time than `num_rows`."""
        return self._measured_s[num_rows] > self._measured_s[more_rows]

    def _exact_s(self, num_rows: int, num_context: int) -> float:
        attention_s = self._row_s * self._attention_share * num_context
        return self._measured_s[num_rows] + num_rows * attention_s


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
