"""Time and memory limits for untrusted code."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn


class TimeLimitReached(Exception):
    """The block reached its time limit."""


@contextmanager
def limited(max_s: float, max_bytes: int) -> Iterator[None]:
    """Run a block within limits. Raise `TimeLimitReached` or MemoryError when it exceeds them.

    Call this in the main thread only, because the time limit is a signal. Python handles a signal
    only between C functions, so a long one can exceed the limit. The memory limit applies to the
    whole process while the block runs.
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
    """Return the limit that allows `max_bytes` beyond the memory in use, but at most `limit`."""
    num_pages = int(Path("/proc/self/statm").read_text().split()[0])
    lower = num_pages * resource.getpagesize() + max_bytes
    return lower if limit == resource.RLIM_INFINITY else min(limit, lower)


def _expire(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise TimeLimitReached
