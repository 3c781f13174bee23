"""How long a step of answers takes by its number of rows: what a guess costs."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from llmd.worker.scheduling.padding import GROUP

_POINTS = (1, 2, GROUP, 2 * GROUP - 1, 2 * GROUP, 4 * GROUP, 8 * GROUP)
"""Numbers of rows that are measured."""

_NUM_TRIES = 3

_MAX_S = 2.0
"""To measure: a large model is not kept from its users for what the others can tell as well."""

_MIN_GAIN = 1.05
"""Of a group: less is no reason to compute what nobody wants."""

_SHARE = 1 / 16
"""Of the last step in what a row costs more than at the start."""


class StepTime:
    """Times of steps by rows. Arithmetic alone.

    They were measured at the start, without a history. What a row takes longer now (its attention
    over a long text, a neighbour on the cores) is learned.
    """

    def __init__(self, measured: Mapping[int, float], max_rows: int) -> None:
        """`measured` tells the seconds by number of rows, of one row at least."""
        fewer, whole = measured.get(2 * GROUP - 1, 0.0), measured.get(2 * GROUP, math.inf)
        self.is_less_in_groups = fewer > _MIN_GAIN * whole
        """Whether a full group of rows takes less time than one that is not."""
        self._row_s = 0.0
        self._quiet_s = _table(measured, max_rows, in_groups=self.is_less_in_groups)

    def of(self, num_rows: int) -> float:
        """Return the seconds that a step of so many rows may take."""
        return self._quiet_s[num_rows] + num_rows * self._row_s

    def note(self, num_rows: int, took_s: float) -> None:
        """Take in how long a step took."""
        more_s = max(0.0, took_s - self._quiet_s[num_rows]) / num_rows
        self._row_s += _SHARE * (more_s - self._row_s)


def _table(measured: Mapping[int, float], max_rows: int, *, in_groups: bool) -> list[float]:
    """Return the seconds of 0 to `max_rows` rows."""
    points = [rows for rows in sorted(measured) if not in_groups or rows != 2 * GROUP - 1]
    known = [measured[rows] for rows in points]
    last = points[-1]
    table = [
        float(np.interp(rows, points, known)) if rows < last else known[-1] * rows / last
        for rows in range(max_rows + 1)
    ]
    if in_groups:
        single = (measured[2 * GROUP - 1] - measured[GROUP]) / (GROUP - 1)
        for rows in range(max_rows + 1):
            whole, rest = rows // GROUP * GROUP, rows % GROUP
            if rest:
                table[rows] = single * rest + (table[whole] if whole else measured[1] - single)
    return table


class _Rows(Protocol):
    """What is measured: see `Backend`."""

    max_batch_tokens: int
    max_output_rows: int

    def add(self, token: int, position: int, slot: int, *, output: bool) -> None: ...

    def decode(self) -> float: ...

    def truncate(self, slot: int, num_tokens: int) -> int: ...


def measure(backend: _Rows) -> dict[int, float]:
    """Return what steps take of some numbers of rows, in seconds: the least of a few tries."""
    least: dict[int, float] = {}
    began = time.monotonic()
    points = [rows for rows in _POINTS if rows <= backend.max_batch_tokens]
    for _, rows in itertools.product(range(_NUM_TRIES), points):
        if least and time.monotonic() - began > _MAX_S:
            break
        for position in range(rows):
            backend.add(0, position, 0, output=position < backend.max_output_rows)
        took_s = backend.decode()
        least[rows] = min(took_s, least.get(rows, took_s))
        backend.truncate(0, 0)
    return least
