"""Limits on how often wrong keys are accepted for checking."""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

_WINDOW_S = 60.0

# Failures of new names are counted under this name while the table is full.
_OTHERS = "others"


class Failures:
    """Counts failures by name, for a minute from the first, in bounded memory. Thread-safe.

    No name is forgotten early to make room: while `max_names` are counted, all further ones are
    counted together.
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
        """Count a failure. Return whether `name` has to wait from this failure on."""
        with self._lock:
            now = self._forget_old()
            name = self._counted_name(name)
            started_at, count = self._counts.get(name, (now, 0))
            self._counts[name] = (started_at, count + 1)
            return count + 1 == self._max_failures

    def wait_s(self, name: str) -> int:
        """Return how many whole seconds `name` has to wait; 0 if it may try now."""
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
    """Return the network under which `address` is counted: itself for IPv4, its /64 for IPv6.

    An IPv6 site has at least a /64, and a client can use every address in it.
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
