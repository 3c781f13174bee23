"""Limits of processor time and memory for untrusted code."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_MIN_INTERVAL_S = 0.01
"""The shortest time between two looks at the processor time that was used."""


class TimeLimitReached(Exception):
    """The block reached its time limit."""


@contextmanager
def limited(max_s: float, max_bytes: int) -> Iterator[None]:
    """Run a block within limits. Raise `TimeLimitReached` or MemoryError when it exceeds them.

    `max_s` is processor time of the calling thread: on a busy machine a block may take much
    longer. Call this in the main thread only, because the time limit is a signal. Python handles
    a signal only between C functions, so a long one can exceed the limit. The memory limit
    applies to the whole process while the block runs.
    """
    limits = resource.getrlimit(resource.RLIMIT_AS)
    ends_at = time.thread_time() + max_s

    def check(_signal: int, _frame: FrameType | None) -> None:
        # The timer counts real time, because those of processor time count all threads.
        if time.thread_time() >= ends_at:
            raise TimeLimitReached

    handler = signal.signal(signal.SIGALRM, check)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (_lower(limits[0], max_bytes), limits[1]))
        signal.setitimer(signal.ITIMER_REAL, max_s, max(_MIN_INTERVAL_S, max_s / 10))
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
