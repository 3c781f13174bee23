"""The main job: answer a prompt, within a session or without."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator

from llmd.chat import prompt, window
from llmd.chat.admission import POLL_S, Admission, Ticket
from llmd.chat.request import AnswerRequest, AnswerResult, Timings, Usage
from llmd.engine.engine import Engine, Request
from llmd.engine.generation import Generation
from llmd.engine.protocol import Delta, Done, FinishReason, Sampling, Started
from llmd.errors import ClientGone, Conflict, Draining, EngineDied, LlmdError
from llmd.store.profiles import Profile, Profiles, StoredProfile
from llmd.store.sessions import NewTurn, Sessions, session_id
from llmd.store.settings import Settings

log = logging.getLogger(__name__)

CANCEL_WITHIN_S = 10.0
"""How long a cancelled generation may take to end: a step, and that of a big model."""


class Answers:
    """Begin answers: admit, read session and profile, build the prompt, submit."""

    def __init__(
        self,
        engine: Engine,
        admission: Admission,
        profiles: Profiles,
        sessions: Sessions,
        settings: Settings,
        *,
        log_prompts: bool = False,
    ) -> None:
        self._engine = engine
        self._admission = admission
        self._profiles = profiles
        self._sessions = sessions
        self._settings = settings
        self._log_prompts = log_prompts

    def start(self, owner: str, request: AnswerRequest, is_gone: Callable[[], bool]) -> Answer:
        """Return an answer that is being generated; all that can be refused is refused here.

        Raise the errors of `Admission.enter` and `Engine.submit`, `UnknownProfile`, `Conflict`
        when the profile is made for a model that is not loaded, and `PromptTooLong`.
        """
        session = None if request.session_id is None else session_id(request.session_id)
        if self._log_prompts:
            log.info("prompt: %s", request.prompt)
        self._engine.check_ready()
        ticket = self._admission.enter(owner, session, is_gone)
        try:
            stored = self._profile(request.profile)
            profile = request.applied_to(stored.profile)
            num_turns, turns = (
                (0, [])
                if session is None
                else self._sessions.history(owner, session, profile.history_turns)
            )
            kept = window.num_kept(num_turns, profile.history_turns)
            turns = turns[len(turns) - kept :]
            seed = secrets.randbelow(2**32 - 1) if profile.seed is None else profile.seed
            generation = self._engine.submit(
                Request(
                    owner=owner,
                    session=session or "",
                    prompt=prompt.build(profile, turns, request.prompt),
                    num_turns=len(turns),
                    sampling=_sampling(profile, seed),
                    max_tokens=profile.max_tokens,
                    max_context_tokens=profile.n_ctx,
                    stop=list(profile.stop) or prompt.default_stop(profile),
                )
            )
            answer = Answer(
                owner=owner,
                session=session,
                request=request,
                profile=stored,
                seed=seed,
                generation=generation,
                ticket=ticket,
                admission=self._admission,
                sessions=self._sessions,
                is_gone=is_gone,
                log_text=self._log_prompts,
            )
        except BaseException:
            ticket.release()
            raise
        answer.wait_started()
        return answer

    def _profile(self, name: str | None) -> StoredProfile:
        """Return the profile asked for, or the selected one; check that its model is loaded."""
        selection = self._settings.selection()
        stored = self._profiles.get(name or selection.profile)
        wanted = stored.profile.model
        if stored.name != selection.profile and wanted not in ("", self._engine.model):
            raise Conflict(
                f"the profile {stored.name} is for {wanted}, but {self._engine.model} is loaded: "
                "an admin can load it by POST /models/model",
                param="profile",
            )
        return stored


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
        except EngineDied:
            return
        except LlmdError as error:
            log.warning("cannot keep a cancelled answer: %s", error)


def _sampling(profile: Profile, seed: int) -> Sampling:
    return Sampling(
        temperature=profile.temperature,
        top_p=profile.top_p,
        top_k=profile.top_k,
        min_p=profile.min_p,
        repeat_penalty=profile.repeat_penalty,
        seed=seed,
    )
