"""An answer on its way from the worker to the thread that waits for it."""

from __future__ import annotations

import queue
from collections.abc import Callable

from llmd.engine.protocol import Answered, Done, Progress, Refused
from llmd.errors import EngineDied, InvalidField, LlmdError, PromptTooLong

GenerationEvent = Progress | Done | Answered


class Generation:
    """The events of one request. One thread reads them, another puts them in."""

    def __init__(self, request_id: int, model: str, cancel: Callable[[int], None]) -> None:
        self.id = request_id
        self.model = model
        self._cancel = cancel
        self._events: queue.SimpleQueue[GenerationEvent | Refused | EngineDied] = (
            queue.SimpleQueue()
        )

    def put(self, event: GenerationEvent | Refused | EngineDied) -> None:
        """Hand an event to the reader."""
        self._events.put(event)

    def next(self, timeout_s: float) -> GenerationEvent | None:
        """Return the next event, or None when none comes in time.

        `Done` is the last of a request, and one of `Answered` all that a query brings.

        Raise `PromptTooLong` or `InvalidField` when the worker refuses the request, and
        `EngineDied` when the worker ends before its time.
        """
        try:
            event = self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(event, EngineDied):
            raise event
        if isinstance(event, Refused):
            raise _refusal(event)
        return event

    def cancel(self) -> None:
        """Ask the worker to stop; `Done` follows. Does nothing after the end."""
        self._cancel(self.id)


def _refusal(event: Refused) -> LlmdError:
    if event.num_prompt_tokens:
        error = PromptTooLong(event.num_prompt_tokens, event.num_context_tokens)
        error.message = event.message
        return error
    return InvalidField(event.message, param=event.param)
