"""The results of measurements: readings, records of them, and the rows of a table."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from msgspec import Struct

from bench.load import Answer
from bench.machine import Disturbance

RATE = "tok/s"
SHARE = "ratio"


class Row(Struct, frozen=True):
    """The key of readings that are compared: the point, the quantity and its unit."""

    at: str
    what: str
    unit: str

    @property
    def is_more_better(self) -> bool:
        """Whether a larger value is better, as for a rate, unlike for a time."""
        return self.unit == RATE

    @property
    def is_compared(self) -> bool:
        """Whether values of two servers are divided; ratios and counts are not."""
        return self.unit not in {SHARE, "tokens"}


class Reading(Struct, frozen=True):
    """One measured value."""

    at: str
    what: str
    value: float
    unit: str

    @property
    def row(self) -> Row:
        """The row of the table that the reading belongs to."""
        return Row(self.at, self.what, self.unit)


class Record(Struct, frozen=True, kw_only=True):
    """The results of one server in one round of one scenario."""

    scenario: str
    server: str
    round: int
    cpu_code: str
    readings: list[Reading]
    errors: list[str]
    disturbance: Disturbance | None = None


def median(values: Iterable[float]) -> float:
    """Return the median, or 0 if there are no values."""
    found = list(values)
    return statistics.median(found) if found else 0.0


def percentile(values: list[float], share: float) -> float:
    """Return the value that a `share` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def timing(at: str, answers: list[Answer], wall_s: float) -> list[Reading]:
    """Return rate, time to the first token and time between tokens of many answers."""
    first_ms = [answer.first_s * 1000 for answer in answers]
    gaps_ms = [gap * 1000 for answer in answers for gap in answer.gaps_s()]
    read = [answer.num_computed for answer in answers if answer.num_computed is not None]
    return [
        Reading(at, RATE, sum(answer.num_tokens for answer in answers) / wall_s, RATE),
        Reading(at, "first token p50", median(first_ms), "ms"),
        Reading(at, "first token p95", percentile(first_ms, 0.95), "ms"),
        Reading(at, "between tokens p50", median(gaps_ms), "ms"),
        Reading(at, "between tokens p95", percentile(gaps_ms, 0.95), "ms"),
        *([Reading(at, "prompt read p50", median(read), "tokens")] if read else []),
    ]
