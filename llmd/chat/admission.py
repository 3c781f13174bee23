"""Admission of requests: some generate, some wait in a queue, and the rest are refused."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from llmd.errors import Busy, ClientGone, Draining

POLL_S = 0.1
"""How often a waiting request checks whether its client has disconnected."""

BUSY_RETRY_AFTER_S = 5
"""When a client that was refused with `Busy` should try again."""


class Ticket:
    """The right of a request to a place in the queue and then to a stream."""

    def __init__(self, admission: Admission, owner: str, session: str | None) -> None:
        self._admission = admission
        self.owner = owner
        self.conversation = None if session is None else (owner, session)

    def release(self) -> None:
        """Free the stream. Idempotent."""
        self._admission.leave(self)


class Admission:
    """Let at most `max_streams` requests generate and at most `max_queue` wait.

    Owners take turns in the queue. Requests of one session run one after another, so that each
    sees the turn before it.
    """

    def __init__(self, max_streams: int, max_queue: int) -> None:
        self.max_streams = max_streams
        self.max_queue = max_queue
        self._changed = threading.Condition()
        self._active: set[Ticket] = set()
        # The owner whose last request was admitted longest ago comes first.
        self._queues: OrderedDict[str, deque[Ticket]] = OrderedDict()
        self._draining = False
        self._expired = False

    @property
    def num_active(self) -> int:
        """The number of requests that generate."""
        return len(self._active)

    @property
    def num_queued(self) -> int:
        """The number of requests that wait."""
        return sum(map(len, self._queues.values()))

    @property
    def draining(self) -> bool:
        """Whether new requests are refused because the daemon is shutting down."""
        return self._draining

    @property
    def expired(self) -> bool:
        """Whether the requests that generate must end now as well."""
        return self._expired

    def set_limits(self, max_streams: int, max_queue: int) -> None:
        """Change the limits. Requests that are already admitted or queued are not affected."""
        with self._changed:
            self.max_streams = max_streams
            self.max_queue = max_queue
            self._grant()

    def enter(self, owner: str, session: str | None, is_gone: Callable[[], bool]) -> Ticket:
        """Wait for a free stream.

        Raise `Busy` if the queue is full, `Draining` if the daemon is shutting down, and
        `ClientGone` if the client disconnects meanwhile. Errors of `is_gone` end the wait as well.
        """
        ticket = Ticket(self, owner, session)
        with self._changed:
            self._check_draining()
            self._queues.setdefault(owner, deque()).append(ticket)
            self._grant()
            if ticket not in self._active and self.num_queued > self.max_queue:
                self._drop(ticket)
                raise Busy(
                    f"{self.num_active} answers are being generated and {self.num_queued} "
                    "requests are waiting: try again later",
                    retry_after_s=BUSY_RETRY_AFTER_S,
                )
        try:
            while not self._wait_active(ticket):
                # Without the lock, because `is_gone` may read from the database.
                _check_present(is_gone)
        except BaseException:
            self.leave(ticket)
            raise
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Free the stream of a ticket, or its place in the queue, and admit the next request."""
        with self._changed:
            if ticket in self._queues.get(ticket.owner, ()):
                self._drop(ticket)
            self._active.discard(ticket)
            self._grant()
            self._changed.notify_all()

    def drain(self) -> None:
        """Refuse new and waiting requests; those that generate go on."""
        with self._changed:
            self._draining = True
            self._changed.notify_all()

    def expire(self) -> None:
        """End the requests that still generate, because the time to drain is over."""
        self._expired = True

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no request is left. Return False if `timeout_s` passes first."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._active and not self.num_queued,
                max(0.0, deadline - time.monotonic()),
            )

    def _wait_active(self, ticket: Ticket) -> bool:
        """Wait up to `POLL_S`. Return whether the ticket is active. Raise `Draining`."""
        with self._changed:
            self._changed.wait_for(lambda: self._draining or ticket in self._active, POLL_S)
            if ticket in self._active:
                return True
            self._check_draining()
            return False

    def _check_draining(self) -> None:
        if self._draining:
            raise Draining("the server is going down: try again later", retry_after_s=10)

    def _grant(self) -> None:
        """Admit waiting requests to free streams, unless draining. The lock is held."""
        while not self._draining and len(self._active) < self.max_streams:
            ticket = self._next()
            if ticket is None:
                return
            self._queues.move_to_end(ticket.owner)
            self._drop(ticket)
            self._active.add(ticket)
            self._changed.notify_all()

    def _next(self) -> Ticket | None:
        """Return the first waiting ticket, in the order of owners, whose session is not in use."""
        taken = {ticket.conversation for ticket in self._active}
        for queue in self._queues.values():
            for ticket in queue:
                if ticket.conversation is None or ticket.conversation not in taken:
                    return ticket
        return None

    def _drop(self, ticket: Ticket) -> None:
        queue = self._queues[ticket.owner]
        queue.remove(ticket)
        if not queue:
            del self._queues[ticket.owner]


def _check_present(is_gone: Callable[[], bool]) -> None:
    if is_gone():
        raise ClientGone("the client went away while its request waited")
