"""Concurrent requests with the same key."""

from __future__ import annotations

import threading
from collections.abc import Callable

from llmd.errors import TooManyFailures, Unauthorized
from tests.support.fake_keys import ADDRESS, GateHarness


def run_together(harness: GateHarness, count: int, work: Callable[[], None]) -> None:
    """Run `work` in `count` threads, none of which goes on before all have missed the caches."""
    harness.keys.barrier = threading.Barrier(count)
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_key_sent_many_times_at_once_is_verified_once(harness: GateHarness) -> None:
    """Of concurrent requests with one new key, only the first runs Argon2."""
    key_id, text = harness.add()
    callers: list[str] = []
    run_together(harness, 16, lambda: callers.append(harness.gate.check(text, ADDRESS).id))
    assert callers == [key_id] * 16
    assert harness.hasher.num_verified == 1


def test_wrong_key_sent_many_times_at_once_is_verified_once(harness: GateHarness) -> None:
    """Of concurrent requests with one wrong key, only the first runs Argon2 and is counted."""
    wrong = harness.guess(harness.add()[0])
    results: list[type[Exception]] = []
    run_together(harness, 16, lambda: results.append(harness.refused(wrong)))
    assert results == [Unauthorized] * 16
    assert harness.hasher.num_verified == 1


def test_concurrent_guesses_are_counted_one_by_one(harness: GateHarness) -> None:
    """Twenty concurrent guesses cost no more Argon2 than twenty in sequence."""
    key_id, _ = harness.add()
    results: list[type[Exception]] = []
    run_together(harness, 20, lambda: results.append(harness.refused(harness.guess(key_id))))
    assert results.count(TooManyFailures) == 15
    assert harness.hasher.num_verified == 5
