"""A queue from a thread that receives something to the thread that waits for it."""

from __future__ import annotations

import queue
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """A queue of items and errors: one thread reads, another puts in.

    An error that is put in is raised where it is read.
    """

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[T | BaseException] = queue.SimpleQueue()

    def put(self, item: T | BaseException) -> None:
        """Pass an item to the reader, or an error for it to raise."""
        self._items.put(item)

    def next(self, timeout_s: float) -> T | None:
        """Return the oldest item, or None if none comes in time. Raise it if it is an error."""
        try:
            item = self._items.get(timeout=timeout_s) if timeout_s else self._items.get_nowait()
        except queue.Empty:
            return None
        if isinstance(item, BaseException):
            raise item
        return item
