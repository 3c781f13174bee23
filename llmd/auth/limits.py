"""How often somebody may present a wrong key."""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

_WINDOW_S = 60.0

# The name that all share who come while the table is full.
_OTHERS = "others"


class Failures:
    """Count failures by name within a minute of the first, in bounded memory. Thread-safe.

    A name that is held is never forgotten to make room: while `max_names` of them count, all new
    ones are counted together.
    """

    def __init__(
        self,
        max_failures: int,
        *,
        max_names: int = 16_384,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_failures = max_failures
        self._max_names = max_names
        self._clock = clock
        self._lock = threading.Lock()
        # Name to (start of the minute, failures since), oldest start first.
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def add(self, name: str) -> bool:
        """Count a failure. Return whether it is the one that makes `name` wait."""
        with self._lock:
            now = self._forget_old()
            name = self._counted_name(name)
            started_at, count = self._counts.get(name, (now, 0))
            self._counts[name] = (started_at, count + 1)
            return count + 1 == self._max_failures

    def wait_s(self, name: str) -> int:
        """Return for how many whole seconds `name` has to wait; 0: it may try."""
        with self._lock:
            now = self._forget_old()
            started_at, count = self._counts.get(self._counted_name(name), (now, 0))
            if count < self._max_failures:
                return 0
            return max(1, math.ceil(started_at + _WINDOW_S - now))

    def __len__(self) -> int:
        """Return how many names are counted."""
        return len(self._counts)

    def _counted_name(self, name: str) -> str:
        full = len(self._counts) >= self._max_names
        return _OTHERS if full and name not in self._counts else name

    def _forget_old(self) -> float:
        now = self._clock()
        while self._counts:
            name, (started_at, _) = next(iter(self._counts.items()))
            if now < started_at + _WINDOW_S:
                break
            del self._counts[name]
        return now


def network(address: str) -> str:
    """Return who is meant by `address`: the IPv4 address, or the /64 of an IPv6 address.

    A house has at least a /64 to itself, and may call from each address of it.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is None:
            return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))
        parsed = parsed.ipv4_mapped
    return str(parsed)
