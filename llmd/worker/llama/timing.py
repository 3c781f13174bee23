"""Measure how long decodes of some numbers of rows take, and remember that."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import msgspec

from llmd.codecs import Codec

_NUM_TRIES = 3

_MAX_S = 2.0
"""Stop measuring after two seconds: a large model must not keep its users waiting."""


_TIMES: Codec[dict[int, float]] = Codec(dict[int, float])

_MIN_SPEED_UP = 1.25
"""Remembered times are replaced by a measurement that is faster by a quarter: they were wrong."""


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


def remembered_steps(file: Path, measured: dict[int, float]) -> dict[int, float]:
    """Return the times that an earlier worker wrote to `file`, or else write those `measured`.

    Drafts and padding depend on these times, and what a model computes, to the last bit, on those:
    with the same times, the same request gets the same answer after a restart. Times that were
    taken on a busy machine are replaced. Without a file that can be read or written, the measured
    times are returned.
    """
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        known = _TIMES.decode_json(file.read_bytes())
        common = known.keys() & measured.keys()
        known_s, measured_s = (sum(times[rows] for rows in common) for times in (known, measured))
        if 1 in common and known_s < _MIN_SPEED_UP * measured_s:
            return known
    with contextlib.suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = file.with_suffix(f".{os.getpid()}")
        beside.write_bytes(msgspec.json.encode(measured))
        beside.rename(file)
    return measured
