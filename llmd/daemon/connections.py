"""The limits on connections: how many are held, and which one is closed for a new one."""

from __future__ import annotations

import ipaddress
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

log = logging.getLogger(__name__)

_LOG_INTERVAL_S = 60.0
"""Least seconds between two warnings, because a flood must not fill the log."""

_IPV6_PREFIX = 64
"""The bits of an IPv6 address that name a network. A single host can use all of its addresses."""


class Connection(Protocol):
    """A connection, as far as the limits need it."""

    source: str
    """The client's address or network, as `source_of` returns it."""

    @property
    def can_be_evicted(self) -> bool:
        """Whether no request of the connection is being answered or waits for its answer."""

    @property
    def eviction_rank(self) -> tuple[bool, float]:
        """The connection with the lowest rank is closed first."""

    @property
    def num_partial_bytes(self) -> int:
        """The bytes that are held of a request that is not complete."""

    def evict(self) -> None:
        """Close the connection soon, without a response."""


def source_of(host: str) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, _IPV6_PREFIX), strict=False))


class Connections:
    """All open connections, by the source that they come from. Thread-safe.

    Opening a connection costs a client nothing, and no key is known yet, so all connections of one
    source compete with each other. A connection that answers a request is never closed. If the
    limit is reached, the source that has the most connections loses the one that has been without
    a complete request for the longest time. The last `num_reserved` connections are only for
    sources that have none.
    """

    def __init__(
        self,
        *,
        max_total: int,
        max_per_source: int,
        num_reserved: int,
        max_partial_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`max_partial_bytes` limits what incomplete requests may hold together."""
        self._max_total = max_total
        self._max_per_source = max_per_source
        self._num_reserved = num_reserved
        self._max_partial_bytes = max_partial_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._by_source: dict[str, set[Connection]] = {}
        self._num_total = 0
        self._partial_bytes: dict[Connection, int] = {}
        self._num_partial_bytes = 0
        self._logged_at: float | None = None

    def admit(self, source: str) -> bool:
        """Return whether one more connection from `source` may be held.

        If a limit is reached, another connection is evicted for it.
        """
        with self._lock:
            own = self._by_source.get(source, set())
            limit = self._max_total - (self._num_reserved if own else 0)
            if len(own) >= self._max_per_source:
                victim = _first_to_evict(own)
            elif self._num_total >= limit:
                victim = self._first_of_largest()
            else:
                return True
        self._warn(victim.source if victim else source)
        if victim is None:
            return False
        self._evict(victim)
        return True

    def add(self, connection: Connection) -> None:
        """Count a new connection."""
        with self._lock:
            self._by_source.setdefault(connection.source, set()).add(connection)
            self._num_total += 1

    def remove(self, connection: Connection) -> None:
        """Forget a connection. One that is not counted is ignored."""
        with self._lock:
            own = self._by_source.get(connection.source, set())
            if connection in own:
                own.remove(connection)
                self._num_total -= 1
            if not own:
                self._by_source.pop(connection.source, None)
            self._num_partial_bytes -= self._partial_bytes.pop(connection, 0)

    def evict_one(self) -> bool:
        """Evict a connection because a resource is exhausted. Return whether there was one."""
        with self._lock:
            victim = self._first_of_largest()
        if victim is None:
            return False
        self._warn(victim.source)
        self._evict(victim)
        return True

    def note_partial(self, connection: Connection) -> None:
        """Count the bytes of a connection's incomplete request again.

        If all of them together are too many, the source that holds the most loses its oldest
        incomplete request.
        """
        num_bytes = connection.num_partial_bytes
        with self._lock:
            self._num_partial_bytes += num_bytes - self._partial_bytes.pop(connection, 0)
            if num_bytes:
                self._partial_bytes[connection] = num_bytes
        while self._num_partial_bytes > self._max_partial_bytes:
            with self._lock:
                victim = self._first_of_heaviest()
            if victim is None:
                return
            self._warn(victim.source)
            self._evict(victim)

    def _evict(self, victim: Connection) -> None:
        # Outside the lock, because the victim takes its own locks.
        self.remove(victim)
        victim.evict()

    def _first_of_largest(self) -> Connection | None:
        """Return the connection to evict from the source that has the most."""
        sizes = sorted({len(own) for own in self._by_source.values()}, reverse=True)
        for size in sizes:
            own = [at for held in self._by_source.values() if len(held) == size for at in held]
            victim = _first_to_evict(own)
            if victim is not None:
                return victim
        return None

    def _first_of_heaviest(self) -> Connection | None:
        """Return the oldest incomplete request of the source that holds the most bytes."""
        held: dict[str, int] = {}
        evictable = [at for at in self._partial_bytes if at.can_be_evicted]
        for connection in evictable:
            num_bytes = self._partial_bytes[connection]
            held[connection.source] = held.get(connection.source, 0) + num_bytes
        if not held:
            return None
        heaviest = max(held, key=held.__getitem__)
        return _first_to_evict(at for at in evictable if at.source == heaviest)

    def _warn(self, source: str) -> None:
        now = self._clock()
        if self._logged_at is None or now - self._logged_at >= _LOG_INTERVAL_S:
            self._logged_at = now
            log.warning(
                "too many connections or incomplete requests: closing the longest idle ones, "
                "at present from %s",
                source,
            )


def _first_to_evict(connections: Iterable[Connection]) -> Connection | None:
    evictable = (connection for connection in connections if connection.can_be_evicted)
    return min(evictable, key=lambda connection: connection.eviction_rank, default=None)
