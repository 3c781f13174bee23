"""Let a retry join the run of its first attempt, or replay it, so that nothing runs twice.

OpenAI's clients give up a request after some minutes without a byte, and send it again. On a CPU,
the answer may be nearly complete by then.
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
"""How long a run can be joined after its end."""

MAX_KEPT = 256
"""The maximum number of runs that can be joined."""

RETRY_WITHIN_S = 60.0
"""How long a run goes on without a reader if a retry is expected."""


class Attempt(Struct, frozen=True, kw_only=True):
    """The identity of a request, by which its retries are recognised.

    Attempts with the same `owner` and `key` belong together, and their `digest` of the whole
    request must be equal. Only an attempt that `is_retry` joins a run; another one begins anew.
    A client that disconnects after `gives_up_after_s` seconds will retry, as will one that always
    `comes_again`.
    """

    owner: str
    key: str
    digest: bytes
    is_retry: bool
    gives_up_after_s: float | None = None
    comes_again: bool = False

    def grace_s(self, waited_s: float) -> float:
        """Return how long a run goes on without readers if this attempt left after `waited_s`."""
        limit_s = self.gives_up_after_s
        comes_again = self.comes_again or (limit_s is not None and waited_s >= 0.9 * limit_s)
        return RETRY_WITHIN_S if comes_again else 0.0


class _SharedRun:
    """A run in a thread of its own, with all items so far: the run, its pieces, and the end."""

    def __init__(self, start: Callable[[Callable[[], bool]], Run], digest: bytes) -> None:
        self.digest = digest
        self._start = start
        self._lock = threading.RLock()
        self._items: list[Piece | Run | BaseException] = []
        self._readers: list[RunMailbox] = []
        self._has_failed = False
        self._ended_at = math.inf
        self._left_until = math.inf
        self._is_abandoned = False

    def begin(self) -> RunMailbox:
        """Start the thread. Return the mailbox of the first reader."""
        mailbox = self._add_reader()
        threading.Thread(target=self._run, name="answer", daemon=True).start()
        return mailbox

    def enter(self) -> RunMailbox | None:
        """Return the mailbox of a further reader, or None if it is too late to join."""
        with self._lock:
            if self.is_stale or self._check_abandoned():
                return None
            return self._add_reader()

    def leave(self, mailbox: RunMailbox, attempt: Attempt, waited_s: float) -> None:
        """Remove a reader. If none is left, cancel the run after the attempt's `grace_s`."""
        with self._lock:
            self._readers.remove(mailbox)
            self._left_until = time.monotonic() + attempt.grace_s(waited_s)
            self._check_abandoned()

    @property
    def is_stale(self) -> bool:
        """Whether the run can no longer be joined."""
        return self._has_failed or time.monotonic() - self._ended_at > KEPT_S

    def _add_reader(self) -> RunMailbox:
        mailbox = RunMailbox()
        for item in self._items:
            mailbox.put(item)
        self._readers.append(mailbox)
        return mailbox

    def _check_abandoned(self) -> bool:
        """Return whether the run is to be cancelled for lack of readers, which is final."""
        with self._lock:
            is_unread = self._ended_at == math.inf and not self._readers
            if is_unread and time.monotonic() >= self._left_until:
                self._is_abandoned = True
            return self._is_abandoned

    def _run(self) -> None:
        end: Run | BaseException
        try:
            end = run = self._start(self._check_abandoned)
            self._add(run)
            try:
                for piece in run:
                    if piece is not None:
                        self._add(piece)
            finally:
                run.close()
        except BaseException as error:  # noqa: BLE001 - raised again in the threads of the readers
            end = error
            self._has_failed = True
        with self._lock:
            self._ended_at = time.monotonic()
            self._add(end)

    def _add(self, item: Piece | Run | BaseException) -> None:
        """Pass an item to all readers, and keep it for later ones."""
        with self._lock:
            self._items.append(item)
            for mailbox in self._readers:
                mailbox.put(item)


class Retries:
    """Start runs that retries can join."""

    def __init__(self) -> None:
        self._runs: OrderedDict[tuple[str, str], _SharedRun] = OrderedDict()
        self._lock = threading.Lock()

    def run(
        self,
        attempt: Attempt,
        is_gone: Callable[[], bool],
        start: Callable[[Callable[[], bool]], Run],
    ) -> JoinedRun:
        """Return a view of the run that an attempt belongs to. Begin it by `start` if necessary.

        Raise the errors of `start`, and `InvalidField` if the key was used for another request.
        """
        key = (attempt.owner, attempt.key)
        with self._lock:
            for stale_key in [key for key, shared in self._runs.items() if shared.is_stale]:
                del self._runs[stale_key]
            shared = self._runs.get(key)
            if shared is not None and shared.digest != attempt.digest:
                raise InvalidField(
                    "this Idempotency-Key was used for another request", param="Idempotency-Key"
                )
            mailbox = shared.enter() if shared is not None and attempt.is_retry else None
            if shared is None or mailbox is None:
                shared = self._runs[key] = _SharedRun(start, attempt.digest)
                mailbox = shared.begin()
            self._runs.move_to_end(key)
            while len(self._runs) > MAX_KEPT:
                self._runs.popitem(last=False)
        joined = JoinedRun(mailbox, is_gone, partial(shared.leave, mailbox, attempt))
        joined.wait_started()
        return joined
