"""What is measured: readings, rounds of them, and what of them is compared."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from msgspec import Struct

from bench.load import Answer
from bench.machine import Weather

RATE = "tok/s"
SHARE = "ratio"


class Row(Struct, frozen=True):
    """What readings have in common that are compared: at which point, what, in which unit."""

    at: str
    what: str
    unit: str

    @property
    def is_more_better(self) -> bool:
        """Whether a larger figure is the better one, as a rate is and a time is not."""
        return self.unit == RATE

    @property
    def is_compared(self) -> bool:
        """Whether it is divided by another server's: what is a ratio or a number already is not."""
        return self.unit not in {SHARE, "tokens"}


class Reading(Struct, frozen=True):
    """One figure."""

    at: str
    what: str
    value: float
    unit: str

    @property
    def row(self) -> Row:
        """Where it stands in the table."""
        return Row(self.at, self.what, self.unit)


class Record(Struct, frozen=True, kw_only=True):
    """What one server gave in one round of one scenario."""

    scenario: str
    server: str
    round: int
    cpu_code: str
    readings: list[Reading]
    errors: list[str]
    weather: Weather | None = None


def median(values: Iterable[float]) -> float:
    """Return the median; of nothing 0."""
    found = list(values)
    return statistics.median(found) if found else 0.0


def percentile(values: list[float], share: float) -> float:
    """Return the value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def timing(at: str, answers: list[Answer], wall_s: float) -> list[Reading]:
    """Return what is of interest of many answers: rate, first tokens, the time between tokens."""
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
