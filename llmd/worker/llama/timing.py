"""Measure how long decodes of some numbers of rows take."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from typing import Protocol

_NUM_TRIES = 3

_MAX_S = 2.0
"""Stop measuring after two seconds: a large model must not keep its users waiting."""


class _Rows(Protocol):
    """The part of a `Backend` that is measured."""

    max_batch_tokens: int
    max_output_rows: int

    def add(self, token: int, position: int, slot: int, *, output: bool) -> None: ...

    def decode(self) -> float: ...

    def truncate(self, slot: int, num_tokens: int) -> int: ...


def measure_steps(backend: _Rows, numbers_of_rows: Iterable[int]) -> dict[int, float]:
    """Return the seconds of a decode by its number of rows: the least of a few tries.

    Slot 0 is empty before and after. Large numbers may be missing if the model is slow.
    """
    least: dict[int, float] = {}
    began = time.monotonic()
    points = [rows for rows in numbers_of_rows if rows <= backend.max_batch_tokens]
    for _, rows in itertools.product(range(_NUM_TRIES), points):
        if least and time.monotonic() - began > _MAX_S:
            break
        for position in range(rows):
            backend.add(0, position, 0, output=position < backend.max_output_rows)
        took_s = backend.decode()
        least[rows] = min(took_s, least.get(rows, took_s))
        backend.truncate(0, 0)
    return least
