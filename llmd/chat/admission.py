"""Who may generate now, who waits, and who is sent away."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from llmd.errors import Busy, ClientGone, Draining

POLL_S = 0.1
"""How soon a waiting request notices that its client went away."""

BUSY_RETRY_AFTER_S = 5


class Ticket:
    """A place: first in the queue, then among the streams."""

    def __init__(self, admission: Admission, owner: str, session: str | None) -> None:
        self._admission = admission
        self.owner = owner
        self.conversation = None if session is None else (owner, session)

    def release(self) -> None:
        """Give the place back. Idempotent."""
        self._admission.leave(self)


class Admission:
    """At most `max_streams` generate and `max_queue` wait; owners take turns in the queue.

    Requests of one session run one after another: each sees the turn before it.
    """

    def __init__(self, max_streams: int, max_queue: int) -> None:
        self.max_streams = max_streams
        self.max_queue = max_queue
        self._changed = threading.Condition()
        self._active: set[Ticket] = set()
        # The owner served longest ago comes first.
        self._queues: OrderedDict[str, deque[Ticket]] = OrderedDict()
        self._draining = False
        self._expired = False

    @property
    def num_active(self) -> int:
        """Requests that generate."""
        return len(self._active)

    @property
    def num_queued(self) -> int:
        """Requests that wait."""
        return sum(map(len, self._queues.values()))

    @property
    def draining(self) -> bool:
        """Whether new requests are refused because the daemon goes down."""
        return self._draining

    @property
    def expired(self) -> bool:
        """Whether even the answers that are being made must end now."""
        return self._expired

    def set_limits(self, max_streams: int, max_queue: int) -> None:
        """Take other limits; nobody who has a place loses it."""
        with self._changed:
            self.max_streams = max_streams
            self.max_queue = max_queue
            self._grant()

    def enter(self, owner: str, session: str | None, is_gone: Callable[[], bool]) -> Ticket:
        """Wait for a place among the streams.

        Raise `Busy` when the queue is full, `Draining` when the daemon goes down, and
        `ClientGone` when the client went away meanwhile.
        """
        ticket = Ticket(self, owner, session)
        with self._changed:
            self._check_draining()
            self._queues.setdefault(owner, deque()).append(ticket)
            self._grant()
            if ticket not in self._active and self.num_queued > self.max_queue:
                self._drop(ticket)
                raise Busy(
                    f"{self.num_active} answers are being made and {self.num_queued} requests "
                    "wait: try again later",
                    retry_after_s=BUSY_RETRY_AFTER_S,
                )
            while ticket not in self._active:
                if self._draining or is_gone():
                    self._drop(ticket)
                    # Whoever waits until all have left looks again.
                    self._changed.notify_all()
                    self._check_draining()
                    raise ClientGone("the client went away while its request waited")
                self._changed.wait_for(lambda: self._draining or ticket in self._active, POLL_S)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Take a place back and give it to the next."""
        with self._changed:
            self._active.discard(ticket)
            self._grant()
            self._changed.notify_all()

    def drain(self) -> None:
        """Refuse all new requests and those that wait; the others go on."""
        with self._changed:
            self._draining = True
            self._changed.notify_all()

    def expire(self) -> None:
        """End the answers that are still being made: the time to drain is over."""
        self._expired = True

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no request is left; False when time runs out before."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._active and not self.num_queued,
                max(0.0, deadline - time.monotonic()),
            )

    def _check_draining(self) -> None:
        if self._draining:
            raise Draining("the server is going down: try again later", retry_after_s=10)

    def _grant(self) -> None:
        """Give free places to those who wait, unless they are to go; the lock is held."""
        while not self._draining and len(self._active) < self.max_streams:
            ticket = self._next()
            if ticket is None:
                return
            self._queues.move_to_end(ticket.owner)
            self._drop(ticket)
            self._active.add(ticket)
            self._changed.notify_all()

    def _next(self) -> Ticket | None:
        """Return the first that waits, by owner, and whose session nobody else uses."""
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
