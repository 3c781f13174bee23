from __future__ import annotations

import sys
import threading

import pytest

from llmd.engine.rate import WINDOW_S, Rate


def test_rate_is_the_growth_over_the_time_it_took() -> None:
    """Thirty tokens in two seconds are a rate of fifteen per second."""
    rate = Rate()
    for now, total in [(100.0, 10), (101.0, 20), (102.0, 40)]:
        rate.add(now, total)
    assert rate.per_second(102.0) == 15.0


def test_rate_forgets_what_is_older_than_its_window() -> None:
    """Values that are older than the window do not count."""
    rate = Rate()
    rate.add(100.0, 0)
    rate.add(101.0, 1000)
    rate.add(101.0 + WINDOW_S, 1010)
    assert rate.per_second(101.0 + WINDOW_S) == 1.0
    assert rate.per_second(102.0 + 2 * WINDOW_S) == 0.0


def test_rate_of_one_sample_or_none_is_zero() -> None:
    """A rate needs two values at different times."""
    rate = Rate()
    assert rate.per_second(1.0) == 0.0
    rate.add(1.0, 100)
    assert rate.per_second(1.0) == 0.0
    rate.add(1.0, 200)
    assert rate.per_second(1.0) == 0.0


def test_counter_that_fell_begins_anew() -> None:
    """A counter that falls belongs to a new worker, and the rate is never negative."""
    rate = Rate()
    rate.add(100.0, 5000)
    rate.add(101.0, 0)
    rate.add(102.0, 8)
    assert rate.per_second(102.0) == 8.0


@pytest.fixture
def _many_switches() -> object:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_many_switches")
def test_rate_can_be_read_while_it_grows() -> None:
    """The rate can be read while another thread adds values."""
    rate = Rate()
    ends = threading.Event()

    def grow() -> None:
        for step in range(20_000):
            rate.add(step / 100, step)
        ends.set()

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        while not ends.is_set():
            assert rate.per_second(0.0) >= 0.0
    finally:
        writer.join()
