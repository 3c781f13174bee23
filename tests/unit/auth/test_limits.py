from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.auth.limits import Failures, network
from llmd.auth.ttl_cache import TtlCache


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.time_s = 1000.0

    def __call__(self) -> float:
        return self.time_s


def test_name_waits_after_its_last_failure_until_the_minute_is_over() -> None:
    """The third of three failures makes only its name wait, for the rest of the minute."""
    clock = Clock()
    failures = Failures(3, clock=clock)
    assert [failures.add("a") for _ in range(2)] == [False, False]
    assert failures.wait_s("a") == 0
    clock.time_s += 20
    assert failures.add("a")
    assert failures.wait_s("a") == 40
    assert failures.wait_s("b") == 0
    clock.time_s += 39.5
    assert failures.wait_s("a") == 1
    clock.time_s += 0.5
    assert failures.wait_s("a") == 0
    assert len(failures) == 0


def test_flood_of_names_takes_bounded_memory_and_evicts_no_name() -> None:
    """100,000 new names neither grow the table nor remove a name that must wait."""
    clock = Clock()
    failures = Failures(2, max_names=100, clock=clock)
    failures.add("held")
    failures.add("held")
    for number in range(100_000):
        failures.add(f"flood {number}")
    assert len(failures) <= 101
    assert failures.wait_s("held") > 0
    assert failures.wait_s("somebody new") > 0
    clock.time_s += 60
    assert failures.wait_s("somebody new") == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 90)), max_size=60))
def test_at_most_twice_the_limit_fails_in_any_minute(
    steps: list[tuple[int, float]],
) -> None:
    """A caller that waits when told to fails at most twice the limit in any 60 seconds."""
    clock = Clock()
    failures = Failures(3, max_names=4, clock=clock)
    tries: dict[int, list[float]] = {}
    for name, pause_s in steps:
        clock.time_s += pause_s
        if not failures.wait_s(str(name)):
            failures.add(str(name))
            tries.setdefault(name, []).append(clock.time_s)
    for times in tries.values():
        for end in times:
            assert sum(end - 60 < time_s <= end for time_s in times) <= 6


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "unknown"),
        ("localhost", "unknown"),
    ],
)
def test_address_is_counted_under_its_network(address: str, expected: str) -> None:
    """An IPv4 address is counted alone, an IPv6 address under its /64."""
    assert network(address) == expected


def test_item_expires() -> None:
    """An item expires when its time is over, counted from the last put."""
    clock = Clock()
    cache: TtlCache[str, int] = TtlCache(2, 10.0, clock)
    cache.put("a", 1)
    clock.time_s += 9
    assert cache.get("a") == 1
    cache.put("a", 1)
    clock.time_s += 9
    assert cache.get("a") == 1
    clock.time_s += 1
    assert cache.get("a") is None
    assert len(cache) == 0


def test_full_cache_drops_the_least_recently_used_item() -> None:
    """A full cache keeps the items that were used last."""
    cache: TtlCache[str, int] = TtlCache(2, 10.0, Clock())
    cache.put("a", 1)
    cache.put("b", 2)
    cache.get("a")
    cache.put("c", 3)
    assert [cache.get(name) for name in "abc"] == [1, None, 3]
    cache.remove("a")
    assert cache.get("a") is None
