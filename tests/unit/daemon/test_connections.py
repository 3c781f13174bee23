"""The limits on connections, by the addresses that they come from."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import pytest

from llmd.daemon.connections import Connections, source_of


@dataclass(eq=False)
class Fake:
    """A connection that records whether it was evicted."""

    source: str
    since: float = 0.0
    can_be_evicted: bool = True
    is_sending: bool = False
    num_partial_bytes: int = 0
    is_evicted: bool = False

    @property
    def eviction_rank(self) -> tuple[bool, float]:
        """The rank that a real connection would have."""
        return self.is_sending, self.since

    def evict(self) -> None:
        """Record the eviction."""
        self.is_evicted = True


class Held:
    """The limits 10 in total, 6 for each address and 2 reserved, with what was admitted."""

    def __init__(self) -> None:
        self.now = 0.0
        self.connections = Connections(
            max_total=10,
            max_per_source=6,
            num_reserved=2,
            max_partial_bytes=1000,
            clock=lambda: self.now,
        )
        self.all: list[Fake] = []

    def open(self, source: str, **attributes: object) -> Fake | None:
        """Open a connection, unless it is refused."""
        if not self.connections.admit(source):
            return None
        made = Fake(source, since=len(self.all), **attributes)  # type: ignore[arg-type]
        self.connections.add(made)
        self.all.append(made)
        return made

    def evicted(self) -> list[tuple[str, float]]:
        """Return the source and the age of each evicted connection, in no order."""
        return [(at.source, at.since) for at in self.all if at.is_evicted]


@pytest.fixture
def held() -> Held:
    """Provide small limits without connections."""
    return Held()


def test_an_address_at_its_limit_loses_its_longest_idle_connection(held: Held) -> None:
    """One address never holds more than its limit, and others are not affected."""
    held.open("b")
    for _ in range(9):
        assert held.open("a")
    assert held.evicted() == [("a", 1), ("a", 2), ("a", 3)]


def test_when_all_are_in_use_the_address_with_the_most_gives_one_up(held: Held) -> None:
    """A new address is served although others have filled all connections."""
    for source in "aaaaabbb":
        held.open(source)
    assert held.evicted() == []
    for source in "cdefg":
        assert held.open(source)
    assert held.evicted() == [("a", 0), ("a", 1), ("a", 2)]


def test_the_reserve_is_for_addresses_that_have_none(held: Held) -> None:
    """An address that has connections already cannot use the last ones."""
    for source in "aaaabbbb":
        held.open(source, can_be_evicted=False)
    assert held.open("a") is None
    assert held.open("b") is None
    assert held.open("c")
    assert held.open("d")


def test_a_connection_that_answers_a_request_is_never_closed(held: Held) -> None:
    """A flood of new connections is refused before a running request is harmed."""
    running = [held.open(source, can_be_evicted=False) for source in "aaaabbbbcd"]
    assert [held.open(source) for source in "abcde"] == [None] * 5
    assert not any(at.is_evicted for at in running if at)


def test_an_unsent_response_is_kept_before_an_idle_connection(held: Held) -> None:
    """A connection that has not yet sent all of a response is closed only after idle ones."""
    held.open("a", is_sending=True)
    for _ in range(6):
        held.open("a")
    assert held.evicted() == [("a", 1)]


def test_a_closed_connection_makes_room(held: Held) -> None:
    """A connection counts until it is closed, and only once."""
    made = [held.open(source) for source in "aaaabbbb"]
    for connection in made[:4]:
        assert connection
        held.connections.remove(connection)
        held.connections.remove(connection)
    for source in "cccc":
        held.open(source)
    assert held.evicted() == []


def test_incomplete_requests_hold_a_limited_number_of_bytes(held: Held) -> None:
    """The address whose incomplete requests hold the most bytes loses the oldest of them."""
    small, *large = (held.open(source) for source in "baaa")
    assert small
    small.num_partial_bytes = 300
    held.connections.note_partial(small)
    for connection in large:
        assert connection
        connection.num_partial_bytes = 300
        held.connections.note_partial(connection)
    assert held.evicted() == [("a", 1)]
    small.num_partial_bytes = 0
    held.connections.note_partial(small)
    assert held.evicted() == [("a", 1)]


def test_an_exhausted_resource_costs_one_idle_connection(held: Held) -> None:
    """Without a free descriptor, a connection of the largest address is closed."""
    assert not held.connections.evict_one()
    for source in "baa":
        held.open(source)
    assert held.connections.evict_one()
    assert held.evicted() == [("a", 1)]


def test_a_flood_is_logged_once_a_minute(held: Held, caplog: pytest.LogCaptureFixture) -> None:
    """The log names the address, but does not grow with the flood."""
    caplog.set_level(logging.WARNING)
    for _ in range(50):
        held.open("198.51.100.7")
    held.now = 61.0
    held.open("198.51.100.7")
    assert [record.getMessage().count("198.51.100.7") for record in caplog.records] == [1, 1]


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("localhost", "localhost", True),
    ],
)
def test_the_addresses_of_one_host_are_one_source(one: str, other: str, is_same: bool) -> None:
    """A host owns a whole /64 network of IPv6, so these addresses count together."""
    assert (source_of(one) == source_of(other)) is is_same
