"""An answer on its way from the worker to the thread that waits for it."""

from __future__ import annotations

from collections.abc import Callable

from llmd.engine.mailbox import Mailbox
from llmd.engine.protocol import Answered, Done, Progress, Refused, refusal_error

GenerationEvent = Progress | Done | Answered


class Generation(Mailbox[GenerationEvent]):
    """The events of one request. One thread reads them, another puts them in.

    `Done` is the last of a request, and one of `Answered` all that a query brings. `next` raises
    `PromptTooLong` or `InvalidField` when the worker refuses the request, and `EngineDied` when
    the worker ends before its time.
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
        """Ask the worker to stop; `Done` follows. Does nothing after the end."""
        self._cancel(self.id)
