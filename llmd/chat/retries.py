"""A request that comes again joins the one that runs, or gets its answer: nothing runs twice.

OpenAI's clients give up a request after some minutes without a byte and send it again. On a CPU
that may be when the answer is nearly there.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from msgspec import Struct

from llmd.chat.joined_run import JoinedRun, RunMailbox
from llmd.chat.outcome import Piece
from llmd.chat.run import Run
from llmd.errors import InvalidField

KEPT_S = 300.0
MAX_KEPT = 256
RETRY_WITHIN_S = 60.0
"""How long an answer is made on for nobody, when its client is sure to come again."""


class Attempt(Struct, frozen=True, kw_only=True):
    """What tells whether requests are the same one.

    `key` names it, `digest` is of all that was asked. An attempt that `is_retry` takes what is
    there; another begins anew. `gives_up_after_s`: then the client goes away and comes again.
    """

    owner: str
    key: str
    digest: bytes
    is_retry: bool
    gives_up_after_s: float | None = None
    comes_again: bool = False

    def grace_s(self, waited_s: float) -> float:
        """Return how long a run goes on for nobody after this attempt has waited and left."""
        limit_s = self.gives_up_after_s
        comes_again = self.comes_again or (limit_s is not None and waited_s >= 0.9 * limit_s)
        return RETRY_WITHIN_S if comes_again else 0.0


class _Job:
    """One run in a thread of its own, with all that it has brought: itself, pieces, the end."""

    def __init__(self, start: Callable[[Callable[[], bool]], Run], digest: bytes) -> None:
        self.digest = digest
        self._start = start
        self._lock = threading.RLock()
        self._brought: list[Piece | Run | BaseException] = []
        self._readers: list[RunMailbox] = []
        self._has_failed = False
        self._ended_at = math.inf
        self._left_until = math.inf
        self._is_abandoned = False

    def begin(self) -> RunMailbox:
        """Start the work; return where the first reader gets everything."""
        mailbox = self._add_reader()
        threading.Thread(target=self._work, name="answer", daemon=True).start()
        return mailbox

    def enter(self) -> RunMailbox | None:
        """Return where a further reader gets everything; None when it is too late to join."""
        with self._lock:
            if self.is_stale or self._check_abandoned():
                return None
            return self._add_reader()

    def leave(self, mailbox: RunMailbox, attempt: Attempt, waited_s: float) -> None:
        """Take a reader off. Without any, the work ends after so long."""
        with self._lock:
            self._readers.remove(mailbox)
            self._left_until = time.monotonic() + attempt.grace_s(waited_s)
            self._check_abandoned()

    @property
    def is_stale(self) -> bool:
        """Whether nobody shall join any more."""
        return self._has_failed or time.monotonic() - self._ended_at > KEPT_S

    def _add_reader(self) -> RunMailbox:
        mailbox = RunMailbox()
        for item in self._brought:
            mailbox.put(item)
        self._readers.append(mailbox)
        return mailbox

    def _check_abandoned(self) -> bool:
        """Tell whether nobody waits any more: once so, it stays so."""
        with self._lock:
            is_unread = self._ended_at == math.inf and not self._readers
            if is_unread and time.monotonic() >= self._left_until:
                self._is_abandoned = True
            return self._is_abandoned

    def _work(self) -> None:
        end: Run | BaseException
        try:
            end = run = self._start(self._check_abandoned)
            self._bring(run)
            run.push_to(lambda: True, self._bring)
            try:
                for piece in run:
                    if piece is not None:
                        self._bring(piece)
            finally:
                run.close()
        except BaseException as error:  # noqa: BLE001 - it is raised again in the reader's thread
            end = error
            self._has_failed = True
        with self._lock:
            self._ended_at = time.monotonic()
            self._bring(end)

    def _bring(self, item: Piece | Run | BaseException) -> None:
        """Give something to all readers, and to those that will come."""
        with self._lock:
            self._brought.append(item)
            for mailbox in self._readers:
                mailbox.put(item)


class Retries:
    """The runs that a retry may join."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[tuple[str, str], _Job] = OrderedDict()
        self._lock = threading.Lock()

    def run(
        self,
        attempt: Attempt,
        is_gone: Callable[[], bool],
        start: Callable[[Callable[[], bool]], Run],
    ) -> JoinedRun:
        """Return a view of the run that this attempt belongs to, begun by `start` if need be.

        Raise as `start` does, and `InvalidField` when the key was used for another request.
        """
        place = (attempt.owner, attempt.key)
        with self._lock:
            for stale in [place for place, job in self._jobs.items() if job.is_stale]:
                del self._jobs[stale]
            job = self._jobs.get(place)
            if job is not None and job.digest != attempt.digest:
                raise InvalidField(
                    "this Idempotency-Key was used for another request", param="Idempotency-Key"
                )
            mailbox = job.enter() if job is not None and attempt.is_retry else None
            if job is None or mailbox is None:
                job = self._jobs[place] = _Job(start, attempt.digest)
                mailbox = job.begin()
            self._jobs.move_to_end(place)
            while len(self._jobs) > MAX_KEPT:
                self._jobs.popitem(last=False)
        joined = JoinedRun(mailbox, is_gone, partial(job.leave, mailbox, attempt))
        joined.wait_started()
        return joined
