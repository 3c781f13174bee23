"""Limits of processor time and memory."""

from __future__ import annotations

import resource
import signal
import time

import pytest

from llmd.worker.prompt.limits import TimeLimitReached, limited

ENOUGH_BYTES = 256 * 1024 * 1024


def _work(duration_s: float) -> None:
    """Use processor time."""
    ends_at = time.thread_time() + duration_s
    while time.thread_time() < ends_at:
        pass


def test_waiting_does_not_count() -> None:
    """On a busy machine a block waits for the processor, which its limit does not count."""
    began = time.monotonic()
    with limited(0.05, ENOUGH_BYTES):
        time.sleep(0.2)
        _work(0.01)
    assert time.monotonic() - began >= 0.2


def test_work_is_stopped_at_its_limit() -> None:
    """A block is stopped soon after it used up its processor time, even if it waited before."""
    began = time.thread_time()
    with pytest.raises(TimeLimitReached), limited(0.05, ENOUGH_BYTES):
        time.sleep(0.1)
        _work(10)
    assert time.thread_time() - began < 1


def test_limits_leave_nothing_behind() -> None:
    """After the block no timer runs, and the signal handler and the memory limit are as before."""
    handler = signal.getsignal(signal.SIGALRM)
    memory = resource.getrlimit(resource.RLIMIT_AS)
    with limited(1, ENOUGH_BYTES):
        assert resource.getrlimit(resource.RLIMIT_AS) != memory
    with pytest.raises(ZeroDivisionError), limited(1, ENOUGH_BYTES):
        _ = 1 / 0
    assert signal.getsignal(signal.SIGALRM) is handler
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert resource.getrlimit(resource.RLIMIT_AS) == memory
