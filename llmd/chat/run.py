"""A generation from its start to the stored outcome."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from llmd.auth.gate import KeyEnded
from llmd.chat.admission import POLL_S, Admission, Ticket
from llmd.chat.outcome import CallPiece, Outcome, Piece, Timings, ToolCall, Usage
from llmd.engine.engine import Engine, Request
from llmd.engine.generation import Generation
from llmd.engine.protocol import (
    CallDelta,
    Delta,
    Done,
    Reasoning,
    Started,
    TokenLogprob,
)
from llmd.errors import BadRequest, ClientGone, Draining, EngineDied, LlmdError

log = logging.getLogger(__name__)

CANCEL_WITHIN_S = 10.0
"""How long a cancelled generation may take to end. It ends after a step, which may be long."""


@dataclass(frozen=True)
class Plan:
    """The request for the engine, and a function that stores the outcome.

    `keep` is called once, before the outcome is reported to the client. After a cancellation it is
    called only if there is any text or tool call.
    """

    request: Request
    keep: Callable[[Outcome], None] = lambda _outcome: None
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created_at: int = field(default_factory=lambda: int(time.time()))


class Run:
    """One generation: iterate over its pieces, then read `outcome`.

    Iteration yields None now and then while there is no new piece. It ends only after the outcome
    is stored. Always call `close` in the end: before the end of the iteration it cancels the
    generation.
    """

    def __init__(
        self,
        plan: Plan,
        generation: Generation,
        ticket: Ticket,
        admission: Admission,
        is_gone: Callable[[], bool],
    ) -> None:
        self.id, self.created_at = plan.id, plan.created_at
        self.model = generation.model
        self.usage: Usage | None = None
        self.timings: Timings | None = None
        self.outcome: Outcome | None = None
        self._plan = plan
        self._generation = generation
        self._ticket = ticket
        self._admission = admission
        self._is_gone = is_gone
        self._started: Started | None = None
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._calls: list[_CallInProgress] = []
        self._closed = False
        self._ended = False

    def wait_started(self) -> None:
        """Wait until the prompt is accepted. Close the run on an error."""
        try:
            while self._started is None:
                self._next()
        except KeyEnded:
            self._close_later()
            raise
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Piece | None]:
        return self

    def __next__(self) -> Piece | None:
        if self._closed or self.outcome is not None:
            raise StopIteration
        try:
            event = self._next()
        except KeyEnded:
            self._close_later()
            raise
        except BaseException:
            self.close()
            raise
        if self.outcome is not None:
            raise StopIteration
        return event

    def close(self) -> None:
        """Free the stream. Cancel an incomplete generation, and store the pieces so far."""
        if self._closed:
            return
        self._closed = True
        self._finish()

    def _close_later(self) -> None:
        """Close without waiting for the end of the step, which may take seconds.

        The request of a key that has ended gets its error at once.
        """
        if not self._closed:
            self._closed = True
            threading.Thread(target=self._finish, name="cancel", daemon=True).start()

    def _finish(self) -> None:
        try:
            if not self._ended:
                self._cancel()
        finally:
            self._ticket.release()

    def _next(self) -> Piece | None:
        """Handle one event. Return the piece that it carries, if any."""
        if self._is_gone():
            raise ClientGone("the client went away")
        if self._admission.expired:
            raise Draining("the server went down before the answer was complete")
        try:
            event = self._generation.next(POLL_S)
        except (BadRequest, EngineDied):
            self._ended = True
            raise
        if isinstance(event, Done):
            self._ended = True
            outcome = self._outcome(event)
            self._plan.keep(outcome)
            self.outcome = outcome
        elif isinstance(event, Started):
            self._started = event
        elif isinstance(event, Delta | Reasoning | CallDelta):
            return self._add(event)
        return None

    def _add(self, event: Delta | Reasoning | CallDelta) -> Piece:
        """Add an event to the outcome, and return it as a piece."""
        if isinstance(event, Delta):
            self._texts.append(event.text)
            self._logprobs += event.logprobs
        elif isinstance(event, Reasoning):
            self._reasoning.append(event.text)
        else:
            if event.index == len(self._calls):
                self._calls.append(_CallInProgress(event.name))
            call = self._calls[event.index]
            call.pieces.append(event.arguments)
            return CallPiece(
                index=event.index, id=call.id, name=event.name, arguments=event.arguments
            )
        return event

    def _outcome(self, done: Done) -> Outcome:
        started = self._started
        self.usage = Usage.of(
            started.num_prompt_tokens if started else 0,
            done.num_completion_tokens,
            started.num_cached_tokens if started else 0,
        )
        self.timings = Timings(
            queue_ms=round(done.queue_ms, 1),
            prefill_ms=round(done.prefill_ms, 1),
            decode_ms=round(done.decode_ms, 1),
            drafted_tokens=done.num_drafted_tokens,
            accepted_tokens=done.num_accepted_tokens,
        )
        return Outcome(
            text="".join(self._texts),
            reasoning="".join(self._reasoning),
            calls=[
                ToolCall(id=call.id, name=call.name, arguments="".join(call.pieces))
                for call in self._calls
            ],
            logprobs=self._logprobs,
            finish_reason=done.finish_reason,
            model=self.model,
            usage=self.usage,
            timings=self.timings,
            num_turns=started.num_turns if started else 0,
        )

    def _cancel(self) -> None:
        """Cancel the generation, wait for its end, and store the pieces so far."""
        self._generation.cancel()
        deadline = time.monotonic() + CANCEL_WITHIN_S
        try:
            while time.monotonic() < deadline:
                event = self._generation.next(POLL_S)
                if isinstance(event, Done):
                    outcome = self._outcome(event)
                    if outcome.text or outcome.calls:
                        self._plan.keep(msgspec.structs.replace(outcome, finish_reason="cancelled"))
                    return
                if isinstance(event, Delta | Reasoning | CallDelta):
                    self._add(event)
        except (BadRequest, EngineDied):
            return
        except LlmdError as error:
            log.warning("cannot store a cancelled answer: %s", error)


class _CallInProgress:
    """A tool call that is being generated."""

    def __init__(self, name: str) -> None:
        self.id = f"call_{secrets.token_hex(12)}"
        self.name = name
        self.pieces: list[str] = []


class Runs:
    """Begin generations. Each one waits for a free stream and is planned only then."""

    def __init__(self, engine: Engine, admission: Admission) -> None:
        self._engine = engine
        self._admission = admission

    def start(
        self,
        owner: str,
        session: str | None,
        is_gone: Callable[[], bool],
        plan: Callable[[], Plan],
    ) -> Run:
        """Begin a generation, and return its run once the engine has accepted the prompt.

        Requests of one `session` run one after another, so `plan` sees the turn before. Raise
        the errors of `Admission.enter`, `Engine.submit` and `plan`, `PromptTooLong` and
        `InvalidField`.
        """
        self._engine.check_ready()
        ticket = self._admission.enter(owner, session, is_gone)
        try:
            planned = plan()
            generation = self._engine.submit(planned.request)
            run = Run(planned, generation, ticket, self._admission, is_gone)
        except BaseException:
            ticket.release()
            raise
        run.wait_started()
        return run
