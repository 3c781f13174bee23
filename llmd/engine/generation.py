"""An answer on its way from the worker to the thread that waits for it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from llmd.engine.protocol import Answered, Done, Progress, Refused
from llmd.errors import EngineDied, InvalidField, LlmdError, PromptTooLong

GenerationEvent = Progress | Done | Answered

Listener = Callable[[GenerationEvent], bool]
"""Handles an event in the thread that brings it; or tells that it did not, by False."""


class Generation:
    """The events of one request. One thread reads them, another puts them in."""

    def __init__(self, request_id: int, model: str, cancel: Callable[[int], None]) -> None:
        self.id = request_id
        self.model = model
        self._cancel = cancel
        self._events: deque[GenerationEvent | Refused | Exception] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._is_awaited = False
        self._listener: Listener | None = None

    def put(self, event: GenerationEvent | Refused | EngineDied) -> None:
        """Hand an event to the reader, or to the listener while the reader waits for one."""
        with self._changed:
            if self._is_awaited and not self._events and self._offer(event):
                return
            self._events.append(event)
            self._changed.notify()

    def listen(self, listener: Listener | None) -> None:
        """Save the reader from being woken for what `listener` can handle; None ends that.

        It is called with the reader waiting in `next`, so that the two never run side by side.
        After an error of its own, which `next` raises, it is called no more.
        """
        with self._changed:
            self._listener = listener

    def next(self, timeout_s: float) -> GenerationEvent | None:
        """Return the next event, or None when none comes in time.

        `Done` is the last of a request, and one of `Answered` all that a query brings.

        Raise `PromptTooLong` or `InvalidField` when the worker refuses the request, and
        `EngineDied` when the worker ends before its time.
        """
        with self._changed:
            if not self._events:
                self._is_awaited = True
                self._changed.wait(timeout_s)
                self._is_awaited = False
            event = self._events.popleft() if self._events else None
        if isinstance(event, Exception):
            raise event
        if isinstance(event, Refused):
            raise _refusal(event)
        return event

    def cancel(self) -> None:
        """Ask the worker to stop; `Done` follows. Does nothing after the end."""
        self._cancel(self.id)

    def _offer(self, event: GenerationEvent | Refused | EngineDied) -> bool:
        """Let the listener handle an event if it can; tell whether it is done with."""
        if self._listener is None or isinstance(event, Refused | EngineDied):
            return False
        try:
            return self._listener(event)
        except Exception as error:  # noqa: BLE001 - the thread that brings events serves all
            self._listener = None
            self._events.append(error)
            self._changed.notify()
            return True


def _refusal(event: Refused) -> LlmdError:
    if event.num_prompt_tokens:
        error = PromptTooLong(event.num_prompt_tokens, event.num_context_tokens)
        error.message = event.message
        return error
    return InvalidField(event.message, param=event.param)
