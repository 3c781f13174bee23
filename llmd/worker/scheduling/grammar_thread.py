"""Compile what bounds answers beside the thread that decodes: it may take a second."""

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
    """A sequence with what bounds its answer, or with the reason why nothing can."""

    sequence: Sequence
    matcher: Matcher | None
    error: InvalidField | None


class Compiler:
    """One thread that compiles one grammar after another, and hands each result to `done`."""

    def __init__(self, backend: Backend, done: Callable[[Compiled], None]) -> None:
        self._backend = backend
        self._done = done
        self._queue: queue.SimpleQueue[Sequence] = queue.SimpleQueue()
        self._pending: dict[int, Sequence] = {}
        threading.Thread(target=self._run, name="grammars", daemon=True).start()

    def submit(self, sequence: Sequence) -> None:
        """Compile for a sequence; for the thread that decodes, as are the methods below."""
        self._pending[sequence.request.id] = sequence
        self._queue.put(sequence)

    def take(self, request_id: int) -> Sequence | None:
        """Return a sequence whose grammar is asked for, and forget it; None when it is not here.

        What is compiled for it all the same is nobody's.
        """
        return self._pending.pop(request_id, None)

    def forget(self, owner: str, session: str | None) -> None:
        """Mark the sequences of an owner's session as forgotten."""
        for sequence in self._pending.values():
            request = sequence.request
            if request.owner == owner and session in (None, request.session):
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
            except BaseException as unforeseen:  # noqa: BLE001 - a panic of the library is one
                sys.stderr.write(f"a grammar could not be compiled: {unforeseen!r}\n")
                error = InvalidField("the grammar cannot be compiled", param="response_format")
            self._done(Compiled(sequence, matcher, error))
