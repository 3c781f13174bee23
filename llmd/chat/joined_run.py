"""One reader's view of a run that others may read too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from llmd.chat.admission import POLL_S
from llmd.chat.outcome import Outcome, Piece, Timings, Usage
from llmd.chat.run import Run
from llmd.engine.mailbox import Mailbox
from llmd.errors import ClientGone

RunMailbox = Mailbox[Piece | Run]
"""A queue that holds a run once it has begun, then its pieces, and the run again at its end."""


class JoinedRun:
    """One reader's view of a shared run, used like a `Run`. It begins with the first piece."""

    def __init__(
        self,
        mailbox: RunMailbox,
        is_gone: Callable[[], bool],
        leave: Callable[[float], None],
    ) -> None:
        """Read a run from `mailbox`. On `close`, call `leave` with the seconds since now."""
        self._mailbox = mailbox
        self._is_gone = is_gone
        self._leave = leave
        self._began = time.monotonic()
        self._closed = False
        self.id = ""
        self.created_at = 0
        self.usage: Usage | None = None
        self.timings: Timings | None = None
        self.outcome: Outcome | None = None

    def wait_started(self) -> None:
        """Wait until the prompt is accepted. Close this view on an error."""
        try:
            while (run := self._mailbox.next(POLL_S)) is None:
                self._check_gone()
        except BaseException:
            self.close()
            raise
        assert isinstance(run, Run), "the first item is the run"  # noqa: S101
        # All readers see the same ID and time.
        self.id, self.created_at = run.id, run.created_at

    def __iter__(self) -> Iterator[Piece | None]:
        return self

    def __next__(self) -> Piece | None:
        if self._closed or self.outcome is not None:
            raise StopIteration
        try:
            item = self._next()
        except BaseException:
            self.close()
            raise
        if isinstance(item, Run):
            self.usage, self.timings, self.outcome = item.usage, item.timings, item.outcome
            raise StopIteration
        return item

    def close(self) -> None:
        """Stop reading. The run is cancelled if no reader is left and no retry is expected."""
        if not self._closed:
            self._closed = True
            self._leave(time.monotonic() - self._began)

    def _next(self) -> Piece | Run | None:
        self._check_gone()
        return self._mailbox.next(POLL_S)

    def _check_gone(self) -> None:
        if self._is_gone():
            raise ClientGone("the client went away")
