"""Keys that come many times at once."""

from __future__ import annotations

import threading
from collections.abc import Callable

from llmd.errors import TooManyFailures, Unauthorized
from tests.support.fake_keys import ADDRESS, GateHarness


def run_together(harness: GateHarness, count: int, work: Callable[[], None]) -> None:
    """Run `work` in so many threads that all have missed the caches before one goes on."""
    harness.keys.barrier = threading.Barrier(count)
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_key_that_comes_many_times_at_once_is_verified_once(harness: GateHarness) -> None:
    """Of requests that come together with one new key, the first pays Argon2 for all."""
    key_id, text = harness.add()
    callers: list[str] = []
    run_together(harness, 16, lambda: callers.append(harness.gate.check(text, ADDRESS).id))
    assert callers == [key_id] * 16
    assert harness.hasher.num_verified == 1


def test_wrong_key_that_comes_many_times_at_once_is_verified_once(harness: GateHarness) -> None:
    """Of requests that come together with one wrong key, the first pays for all and counts."""
    wrong = harness.guess(harness.add()[0])
    results: list[type[Exception]] = []
    run_together(harness, 16, lambda: results.append(harness.refused(wrong)))
    assert results == [Unauthorized] * 16
    assert harness.hasher.num_verified == 1


def test_guesses_that_come_at_once_are_counted_one_by_one(harness: GateHarness) -> None:
    """Twenty guesses at one moment cost no more Argon2 than twenty in a row."""
    key_id, _ = harness.add()
    results: list[type[Exception]] = []
    run_together(harness, 20, lambda: results.append(harness.refused(harness.guess(key_id))))
    assert results.count(TooManyFailures) == 15
    assert harness.hasher.num_verified == 5
