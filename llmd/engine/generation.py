"""The events of a request, passed from the worker to the thread that waits for them."""

from __future__ import annotations

from collections.abc import Callable

from llmd.engine.mailbox import Mailbox
from llmd.engine.protocol import Answered, Done, Progress, Refused, refusal_error

GenerationEvent = Progress | Done | Answered


class Generation(Mailbox[GenerationEvent]):
    """The events of one request. One thread puts events in and another one reads them.

    A request ends with `Done`; a query has a single event, which is one of `Answered`. `next`
    raises `PromptTooLong` or `InvalidField` if the worker refuses the request, and `EngineDied`
    if the worker dies before the end of the request.
    """

    def __init__(self, request_id: int, model: str, cancel: Callable[[int], None]) -> None:
        super().__init__()
        self.id = request_id
        self.model = model
        self._cancel = cancel

    def put(self, item: GenerationEvent | Refused | BaseException) -> None:
        """Hand an event to the reader, or to the listener while the reader waits for one."""
        super().put(refusal_error(item) if isinstance(item, Refused) else item)

    def cancel(self) -> None:
        """Ask the worker to stop generating; `Done` follows. Do nothing after the end."""
        self._cancel(self.id)
