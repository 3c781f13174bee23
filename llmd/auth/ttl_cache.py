"""A cache whose items expire."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Name = TypeVar("Name", bound=Hashable)
Value = TypeVar("Value")


class TtlCache(Generic[Name, Value]):
    """Keeps the `max_items` used last, each for `ttl_s` seconds after it was put. Thread-safe."""

    def __init__(self, max_items: int, ttl_s: float, clock: Callable[[], float]) -> None:
        self._max_items = max_items
        self._ttl_s = ttl_s
        self._clock = clock
        self._lock = threading.Lock()
        self._items: OrderedDict[Name, tuple[float, Value]] = OrderedDict()

    def get(self, name: Name) -> Value | None:
        """Return the value put under `name`, or None if there is none or it has expired."""
        with self._lock:
            put_at, value = self._items.get(name, (None, None))
            if put_at is None:
                return None
            if self._clock() >= put_at + self._ttl_s:
                del self._items[name]
                return None
            self._items.move_to_end(name)
            return value

    def put(self, name: Name, value: Value) -> None:
        """Keep `value` under `name`. A full cache drops the item that was used least recently."""
        with self._lock:
            self._items[name] = (self._clock(), value)
            self._items.move_to_end(name)
            if len(self._items) > self._max_items:
                self._items.popitem(last=False)

    def remove(self, name: Name) -> None:
        """Remove the item under `name`, if there is one."""
        with self._lock:
            self._items.pop(name, None)

    def __len__(self) -> int:
        """Return the number of items, including expired ones that are not yet removed."""
        return len(self._items)
