"""Answer a prompt, within a session or without one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

from msgspec import Struct

from llmd.chat import prompt
from llmd.chat.answer_request import AnswerRequest, AnswerResult
from llmd.chat.engine_request import build_engine_request
from llmd.chat.model_names import ModelNames
from llmd.chat.outcome import Outcome, Timings, Usage
from llmd.chat.run import Plan, Run, Runs
from llmd.engine.protocol import Delta
from llmd.store.profiles import StoredProfile
from llmd.store.sessions import NewTurn, Sessions, session_id

log = logging.getLogger(__name__)


class AnswerContext(Struct, frozen=True, kw_only=True):
    """The context of an answer: its owner, session, request, profile and seed.

    `num_turns` counts the turns of the session before this one.
    """

    owner: str
    session: str | None
    request: AnswerRequest
    profile: StoredProfile
    seed: int
    num_turns: int


class Answer:
    """An answer that is being generated: iterate over its text, then read `result`.

    Iteration yields None now and then while there is no new text. It ends only after the turn is
    stored. Always call `close` in the end: before the end of the iteration it cancels the answer.
    """

    def __init__(self, run: Run, context: AnswerContext) -> None:
        self._run = run
        self._context = context

    @property
    def usage(self) -> Usage | None:
        """The numbers of tokens, once they are known; a cancelled answer has them too."""
        return self._run.usage

    @property
    def timings(self) -> Timings | None:
        """The times that the answer took in the engine, once they are known."""
        return self._run.timings

    @property
    def result(self) -> AnswerResult | None:
        """The result, once the answer is complete and stored."""
        outcome, context = self._run.outcome, self._context
        if outcome is None:
            return None
        return AnswerResult(
            result=outcome.text,
            session_id=context.session,
            profile=context.profile.name,
            model=outcome.model,
            usage=outcome.usage,
            finish_reason=outcome.finish_reason,
            turns_in_prompt=outcome.num_turns,
            seed=context.seed,
            timings=outcome.timings,
        )

    def __iter__(self) -> Iterator[str | None]:
        return self

    def __next__(self) -> str | None:
        event = next(self._run)
        # Reasoning and tool calls are not part of the answer.
        return event.text if isinstance(event, Delta) else None

    def close(self) -> None:
        """Free the stream. Cancel an answer that is incomplete, and store the text so far."""
        self._run.close()


class Answers:
    """Begin answers: read the session and the profile, build the prompt, submit the request."""

    def __init__(
        self, runs: Runs, models: ModelNames, sessions: Sessions, *, log_prompts: bool = False
    ) -> None:
        self._runs = runs
        self._models = models
        self._sessions = sessions
        self._log_prompts = log_prompts

    def start(self, owner: str, request: AnswerRequest, is_gone: Callable[[], bool]) -> Answer:
        """Begin to generate an answer, and return it once the engine has accepted its prompt.

        Raise the errors of `Runs.start`, `UnknownProfile`, and `Conflict` if the profile is for a
        model that is not loaded.
        """
        session = None if request.session_id is None else session_id(request.session_id)
        if self._log_prompts:
            log.info("prompt: %s", request.prompt)
        contexts: list[AnswerContext] = []

        def make_plan() -> Plan:
            plan, context = self._plan(owner, session, request)
            contexts.append(context)
            return plan

        run = self._runs.start(owner, session, is_gone, make_plan)
        return Answer(run, contexts[0])

    def _plan(
        self, owner: str, session: str | None, request: AnswerRequest
    ) -> tuple[Plan, AnswerContext]:
        stored = (
            self._models.selected()
            if request.profile is None
            else self._models.profile(request.profile)
        )
        profile = request.applied_to(stored.profile)
        num_turns, turns = (
            (0, [])
            if session is None
            else self._sessions.history(owner, session, profile.history_turns)
        )
        max_turns = profile.history_turns if prompt.takes_history(profile) else 0
        kept = prompt.num_kept(num_turns, max_turns)
        turns = turns[len(turns) - kept :]
        engine_request = build_engine_request(
            profile,
            prompt.build(profile, turns, request.prompt),
            owner=owner,
            session=session or "",
            num_turns=len(turns),
            has_default_stop=request.stop is None,
        )
        context = AnswerContext(
            owner=owner,
            session=session,
            request=request,
            profile=stored,
            seed=engine_request.sampling.seed,
            num_turns=num_turns,
        )

        def keep(outcome: Outcome) -> None:
            _keep_turn(self._sessions, context, outcome)
            if self._log_prompts:
                log.info("answer: %s", outcome.text)

        return Plan(engine_request, keep), context


def _keep_turn(sessions: Sessions, context: AnswerContext, outcome: Outcome) -> None:
    """Store the turn at the end of its session, if the answer belongs to one."""
    if context.session is None or (outcome.finish_reason == "cancelled" and not outcome.text):
        return
    turn = NewTurn(
        user=context.request.prompt,
        assistant=outcome.text,
        reasoning=outcome.reasoning,
        profile=context.profile.name,
        profile_revision=context.profile.revision,
        model=outcome.model,
        num_prompt_tokens=outcome.usage.prompt_tokens,
        num_cached_tokens=outcome.usage.prompt_tokens_details.cached_tokens,
        num_completion_tokens=outcome.usage.completion_tokens,
        finish_reason=outcome.finish_reason,
        seed=context.seed,
        created_at=int(time.time()),
    )
    # A session that was deleted meanwhile must not be created again.
    sessions.append(context.owner, context.session, turn, must_exist=context.num_turns > 0)
