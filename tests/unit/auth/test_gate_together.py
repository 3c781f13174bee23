"""Keys that come many times at once."""

from __future__ import annotations

import threading
from collections.abc import Callable

from llmd.errors import TooManyFailures, Unauthorized
from tests.support.fake_keys import HOME, House


def run_together(house: House, count: int, work: Callable[[], None]) -> None:
    """Run `work` in so many threads that all have missed the caches before one goes on."""
    house.keys.barrier = threading.Barrier(count)
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_key_that_comes_many_times_at_once_is_verified_once(house: House) -> None:
    """Of requests that come together with one new key, the first pays Argon2 for all."""
    key_id, text = house.add()
    callers: list[str] = []
    run_together(house, 16, lambda: callers.append(house.gate.check(text, HOME).id))
    assert callers == [key_id] * 16
    assert house.hasher.num_verified == 1


def test_wrong_key_that_comes_many_times_at_once_is_verified_once(house: House) -> None:
    """Of requests that come together with one wrong key, the first pays for all and counts."""
    wrong = house.guess(house.add()[0])
    results: list[type[Exception]] = []
    run_together(house, 16, lambda: results.append(house.refused(wrong)))
    assert results == [Unauthorized] * 16
    assert house.hasher.num_verified == 1


def test_guesses_that_come_at_once_are_counted_one_by_one(house: House) -> None:
    """Twenty guesses at one moment cost no more Argon2 than twenty in a row."""
    key_id, _ = house.add()
    results: list[type[Exception]] = []
    run_together(house, 20, lambda: results.append(house.refused(house.guess(key_id))))
    assert results.count(TooManyFailures) == 15
    assert house.hasher.num_verified == 5
