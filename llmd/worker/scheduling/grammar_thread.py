"""The thread that compiles grammars, so that decoding does not wait: one may take a second."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass

from llmd.errors import InvalidField
from llmd.worker.backend import Backend, Matcher
from llmd.worker.cpu.team import leave_core
from llmd.worker.scheduling.sequence import Sequence


@dataclass(frozen=True)
class Compiled:
    """A sequence with the matcher of its grammar, or with the error that refuses it."""

    sequence: Sequence
    matcher: Matcher | None
    error: InvalidField | None


class GrammarThread:
    """A thread that compiles one grammar after another, and passes each result to `done`.

    All methods are for the thread that decodes.
    """

    def __init__(self, backend: Backend, done: Callable[[Compiled], None]) -> None:
        self._backend = backend
        self._done = done
        self._queue: queue.SimpleQueue[Sequence] = queue.SimpleQueue()
        self._pending: dict[int, Sequence] = {}
        threading.Thread(target=self._run, name="grammars", daemon=True).start()

    def submit(self, sequence: Sequence) -> None:
        """Compile the grammar of a sequence."""
        self._pending[sequence.request.id] = sequence
        self._queue.put(sequence)

    def take(self, request_id: int) -> Sequence | None:
        """Remove and return a pending sequence; None if there is none.

        A result that comes for it later is ignored.
        """
        return self._pending.pop(request_id, None)

    def forget(self, owner: str, session: str | None) -> None:
        """Mark the pending sequences of an owner's session, or of all sessions, as forgotten."""
        for sequence in self._pending.values():
            if sequence.conversation.belongs_to(owner, session):
                sequence.forgotten = True

    def _run(self) -> None:
        leave_core()
        while True:
            sequence = self._queue.get()
            matcher, error = None, None
            try:
                matcher = self._backend.compile(sequence.request, is_thinking=sequence.is_thinking)
            except InvalidField as refused:
                error = refused
            except BaseException as unforeseen:  # noqa: BLE001 - the library may panic
                sys.stderr.write(f"a grammar could not be compiled: {unforeseen!r}\n")
                error = InvalidField("the grammar cannot be compiled", param="response_format")
            self._done(Compiled(sequence, matcher, error))
