"""A request that comes again joins the one that runs, or gets its answer: nothing runs twice.

OpenAI's clients give up a request after some minutes without a byte and send it again. On a CPU
that may be when the answer is nearly there.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator

from msgspec import Struct

from llmd.chat.admission import POLL_S
from llmd.chat.outcome import Outcome, Piece
from llmd.chat.run import Run
from llmd.chat.usage import Timings, Usage
from llmd.errors import ClientGone, InvalidField

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


class JoinedRun:
    """One reader's view of a run that others may read too: as `Run`, from the beginning."""

    def __init__(self, job: _Job, is_gone: Callable[[], bool], attempt: Attempt) -> None:
        self._job = job
        self._is_gone = is_gone
        self._attempt = attempt
        self._began = time.monotonic()
        self._at = 0
        self._closed = False
        self.id = ""
        self.created_at = 0
        self.usage: Usage | None = None
        self.timings: Timings | None = None
        self.outcome: Outcome | None = None

    def wait_started(self) -> None:
        """Wait until the prompt is accepted. On an error this reader is closed."""
        try:
            while not self._job.wait(lambda job: job.run is not None or job.error is not None):
                self._check_gone()
            run = self._job.started()
            # The same for all readers.
            self.id, self.created_at = run.id, run.created_at
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Piece | None]:
        return self

    def __next__(self) -> Piece | None:
        if self._closed or self.outcome is not None:
            raise StopIteration
        try:
            return self._next()
        except StopIteration:
            raise
        except BaseException:
            self.close()
            raise

    def push_to(self, is_ready: Callable[[], bool], push: Callable[[Piece], None]) -> None:
        """Do nothing: one who came late is behind the others, so each reads at its own pace."""

    def close(self) -> None:
        """Read no further. The last reader's going ends the run, unless one will come again."""
        if not self._closed:
            self._closed = True
            waited_s = time.monotonic() - self._began
            limit_s = self._attempt.gives_up_after_s
            comes_again = self._attempt.comes_again or (
                limit_s is not None and waited_s >= 0.9 * limit_s
            )
            self._job.leave(RETRY_WITHIN_S if comes_again else 0.0)

    def _next(self) -> Piece | None:
        self._check_gone()
        job, at = self._job, self._at
        if not job.wait(lambda job: len(job.pieces) > at or job.is_over):
            return None
        if len(job.pieces) > at:
            self._at += 1
            return job.pieces[at]
        run = job.started()
        self.usage, self.timings, self.outcome = run.usage, run.timings, run.outcome
        raise StopIteration

    def _check_gone(self) -> None:
        if self._is_gone():
            raise ClientGone("the client went away")


class _Job:
    """One run in a thread of its own, with all that it has brought."""

    def __init__(self, start: Callable[[Callable[[], bool]], Run], digest: bytes) -> None:
        self.digest = digest
        self.run: Run | None = None
        self.error: BaseException | None = None
        self.pieces: list[Piece] = []
        self.is_over = False
        self.ended_at = 0.0
        self._start = start
        self._changed = threading.Condition()
        self._num_readers = 1
        self._left_until = 0.0
        self._is_abandoned = False

    def begin(self) -> None:
        """Start the work, for the one reader that there is."""
        threading.Thread(target=self._work, name="answer", daemon=True).start()

    def enter(self) -> bool:
        """Add a reader; False when it is too late to join."""
        with self._changed:
            if self.is_stale or self._check_abandoned():
                return False
            self._num_readers += 1
            return True

    def leave(self, grace_s: float) -> None:
        """Take a reader off. Without any, the work ends after so long."""
        with self._changed:
            self._num_readers -= 1
            self._left_until = time.monotonic() + grace_s
            self._check_abandoned()

    def wait(self, condition: Callable[[_Job], bool]) -> bool:
        """Wait a short time for something to be so; tell whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: condition(self), POLL_S)

    def started(self) -> Run:
        """Return the run, or raise what it failed with."""
        if self.error is not None:
            raise self.error
        assert self.run is not None, "the run was not waited for"  # noqa: S101
        return self.run

    @property
    def is_stale(self) -> bool:
        """Whether nobody shall join any more."""
        if self.error is not None:
            return True
        return self.is_over and time.monotonic() - self.ended_at > KEPT_S

    def _check_abandoned(self) -> bool:
        """Tell whether nobody waits any more: once so, it stays so."""
        with self._changed:
            is_unread = not self.is_over and not self._num_readers
            if is_unread and time.monotonic() >= self._left_until:
                self._is_abandoned = True
            return self._is_abandoned

    def _work(self) -> None:
        try:
            run = self._start(self._check_abandoned)
            self._change(run=run)
            run.push_to(lambda: True, lambda piece: self._change(piece=piece))
            try:
                for piece in run:
                    if piece is not None:
                        self._change(piece=piece)
            finally:
                run.close()
        except BaseException as error:  # noqa: BLE001 - it is raised again in the reader's thread
            self._change(error=error)
        finally:
            self._change(is_over=True)

    def _change(
        self,
        *,
        run: Run | None = None,
        piece: Piece | None = None,
        error: BaseException | None = None,
        is_over: bool = False,
    ) -> None:
        with self._changed:
            self.run = run or self.run
            self.error = error or self.error
            if piece is not None:
                self.pieces.append(piece)
            if is_over:
                self.is_over = True
                self.ended_at = time.monotonic()
            self._changed.notify_all()


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
            if job is None or not attempt.is_retry or not job.enter():
                job = self._jobs[place] = _Job(start, attempt.digest)
                job.begin()
            self._jobs.move_to_end(place)
            while len(self._jobs) > MAX_KEPT:
                self._jobs.popitem(last=False)
        joined = JoinedRun(job, is_gone, attempt)
        joined.wait_started()
        return joined
