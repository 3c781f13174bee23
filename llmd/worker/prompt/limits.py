"""Bounds for a piece of work that nobody vouches for."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn


class TimeLimitReached(Exception):
    """The work took too long."""


@contextmanager
def limited(max_s: float, max_bytes: int) -> Iterator[None]:
    """Raise `TimeLimitReached` or MemoryError when the block runs longer or takes much more.

    For the main thread only: the time limit is a signal. The memory limit holds for the whole
    process meanwhile, and only while one C function runs can the time go by unseen.
    """
    limits = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, _expire)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (_lower(limits[0], max_bytes), limits[1]))
        signal.setitimer(signal.ITIMER_REAL, max_s)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, handler)


def _lower(limit: int, max_bytes: int) -> int:
    """Return the limit that leaves `max_bytes` beyond what is in use, or the present one."""
    num_pages = int(Path("/proc/self/statm").read_text().split()[0])
    lower = num_pages * resource.getpagesize() + max_bytes
    return lower if limit == resource.RLIM_INFINITY else min(limit, lower)


def _expire(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise TimeLimitReached
