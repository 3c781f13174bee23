"""One answer on its way: its text as it comes, its turn in the store at the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

from llmd.chat.admission import POLL_S, Admission, Ticket
from llmd.chat.request import AnswerRequest, AnswerResult, Timings, Usage
from llmd.engine.generation import Generation
from llmd.engine.protocol import Delta, Done, FinishReason, Started
from llmd.errors import BadRequest, ClientGone, Draining, EngineDied, LlmdError
from llmd.store.profiles import StoredProfile
from llmd.store.sessions import NewTurn, Sessions

log = logging.getLogger(__name__)

CANCEL_WITHIN_S = 10.0
"""How long a cancelled generation may take to end: a step, and that of a big model."""


class Answer:
    """One answer on its way: iterate over its text, then take `result`.

    Iteration gives None now and then while there is nothing new. It ends only after the turn is
    stored. `close` must be called at last; before the end of the iteration it cancels.
    """

    def __init__(
        self,
        *,
        owner: str,
        session: str | None,
        request: AnswerRequest,
        profile: StoredProfile,
        seed: int,
        num_turns: int,
        generation: Generation,
        ticket: Ticket,
        admission: Admission,
        sessions: Sessions,
        is_gone: Callable[[], bool],
        log_text: bool,
    ) -> None:
        self._owner = owner
        self._session = session
        self._request = request
        self._profile = profile
        self._model = generation.model
        self._seed = seed
        self._num_turns = num_turns
        self._generation = generation
        self._ticket = ticket
        self._admission = admission
        self._sessions = sessions
        self._is_gone = is_gone
        self._log_text = log_text
        self._started: Started | None = None
        self._texts: list[str] = []
        self._closed = False
        self._ended = False
        self.usage: Usage | None = None
        self.result: AnswerResult | None = None

    def wait_started(self) -> None:
        """Wait until the prompt is accepted. On an error the answer is closed."""
        try:
            while self._started is None:
                self._next()
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[str | None]:
        return self

    def __next__(self) -> str | None:
        if self._closed or self.result is not None:
            raise StopIteration
        try:
            text = self._next()
        except BaseException:
            self.close()
            raise
        if self.result is not None:
            raise StopIteration
        return text

    def close(self) -> None:
        """Give the place back; cancel what is still running and keep what there is of it."""
        if self._closed:
            return
        self._closed = True
        try:
            if not self._ended:
                self._cancel()
        finally:
            self._ticket.release()

    def _next(self) -> str | None:
        """Handle one event; return text if it brings some."""
        if self._is_gone():
            raise ClientGone("the client went away")
        if self._admission.expired:
            raise Draining("the server went down before the answer was complete")
        try:
            event = self._generation.next(POLL_S)
        except LlmdError:
            self._ended = True
            raise
        if isinstance(event, Delta):
            self._texts.append(event.text)
            return event.text
        if isinstance(event, Started):
            self._started = event
        elif isinstance(event, Done):
            self._ended = True
            self._finish(event)
        return None

    def _finish(self, done: Done) -> None:
        """Store the turn, then make the result: an answer is acknowledged only once it is kept."""
        usage = self._count(done)
        self._store(done.finish_reason, usage)
        if self._log_text:
            log.info("answer: %s", "".join(self._texts))
        self.result = AnswerResult(
            result="".join(self._texts),
            session_id=self._session,
            profile=self._profile.name,
            model=self._model,
            usage=usage,
            finish_reason=done.finish_reason,
            turns_in_prompt=self._started.num_turns if self._started else 0,
            seed=self._seed,
            timings=Timings(
                queue_ms=round(done.queue_ms, 1),
                prefill_ms=round(done.prefill_ms, 1),
                decode_ms=round(done.decode_ms, 1),
            ),
        )

    def _count(self, done: Done) -> Usage:
        """Note the tokens, also of an answer that nobody waits for: the log tells them."""
        started = self._started
        self.usage = Usage.of(
            started.num_prompt_tokens if started else 0,
            done.num_completion_tokens,
            started.num_cached_tokens if started else 0,
        )
        return self.usage

    def _store(self, reason: FinishReason, usage: Usage) -> None:
        if self._session is None:
            return
        self._sessions.append(
            self._owner,
            self._session,
            NewTurn(
                user=self._request.prompt,
                assistant="".join(self._texts),
                profile=self._profile.name,
                profile_revision=self._profile.revision,
                model=self._model,
                num_prompt_tokens=usage.prompt_tokens,
                num_cached_tokens=usage.prompt_tokens_details.cached_tokens,
                num_completion_tokens=usage.completion_tokens,
                finish_reason=reason,
                seed=self._seed,
                created_at=int(time.time()),
            ),
            # A session that was deleted meanwhile must not come back.
            must_exist=self._num_turns > 0,
        )

    def _cancel(self) -> None:
        """Cancel the generation, wait for its end, and store what there is of the answer."""
        self._generation.cancel()
        deadline = time.monotonic() + CANCEL_WITHIN_S
        try:
            while time.monotonic() < deadline:
                event = self._generation.next(POLL_S)
                if isinstance(event, Delta):
                    self._texts.append(event.text)
                elif isinstance(event, Done):
                    usage = self._count(event)
                    if self._texts:
                        self._store("cancelled", usage)
                    return
        except (BadRequest, EngineDied):
            return
        except LlmdError as error:
            log.warning("cannot keep a cancelled answer: %s", error)
