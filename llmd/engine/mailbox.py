"""A queue between two threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """A queue that one thread fills and another one reads. It carries items and errors."""

    def __init__(self) -> None:
        self.was_heard = False
        """Whether the listener took something while the reader waited the last time."""
        self._items: deque[T | BaseException] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._is_awaited = False
        self._listener: Callable[[T], bool] | None = None

    def put(self, item: T | BaseException) -> None:
        """Hand something to the reader, or to the listener while the reader waits for it."""
        with self._changed:
            if self._is_awaited and not self._items and self._offer(item):
                return
            self._items.append(item)
            self._changed.notify()

    def listen(self, listener: Callable[[T], bool] | None) -> None:
        """Save the reader from being woken for what `listener` can handle; None ends that.

        It is called in the thread that puts in, with the reader waiting in `next`, so that the
        two never run side by side. By False it tells that it did not handle something, which is
        the reader's then. After an error of its own, which `next` raises, it is called no more.
        """
        with self._changed:
            self._listener = listener

    def next(self, timeout_s: float) -> T | None:
        """Return the oldest item, or None if none comes in time. Raise it if it is an error."""
        with self._changed:
            self.was_heard = False
            if not self._items:
                self._is_awaited = True
                self._changed.wait(timeout_s)
                self._is_awaited = False
            item = self._items.popleft() if self._items else None
        if isinstance(item, BaseException):
            raise item
        return item

    def _offer(self, item: T | BaseException) -> bool:
        """Let the listener handle an item if it can; tell whether it is done with."""
        if self._listener is None or isinstance(item, BaseException):
            return False
        try:
            is_heard = self._listener(item)
        except Exception as error:  # noqa: BLE001 - the thread that puts in serves all
            self._listener = None
            self._items.append(error)
            self._changed.notify()
            return True
        self.was_heard |= is_heard
        return is_heard
