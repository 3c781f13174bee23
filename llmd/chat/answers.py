"""The main job: begin to answer a prompt, within a session or without."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

from msgspec import Struct

from llmd.chat import prompt
from llmd.chat.answer_request import AnswerRequest, AnswerResult
from llmd.chat.engine_request import engine_request
from llmd.chat.model_names import ModelNames
from llmd.chat.outcome import Outcome, Piece, Timings, Usage
from llmd.chat.run import Plan, Run, Runs
from llmd.engine.protocol import Delta
from llmd.store.profiles import StoredProfile
from llmd.store.sessions import NewTurn, Sessions, session_id

log = logging.getLogger(__name__)


class Asked(Struct, frozen=True, kw_only=True):
    """What is answered, and by which means. `num_turns` counts the session's turns before."""

    owner: str
    session: str | None
    request: AnswerRequest
    profile: StoredProfile
    seed: int
    num_turns: int


class Answer:
    """One answer on its way: iterate over its text, then take `result`.

    Iteration gives None now and then while there is nothing new. It ends only after the turn is
    stored. `close` must be called at last; before the end of the iteration it cancels.
    """

    def __init__(self, run: Run, asked: Asked) -> None:
        self._run = run
        self._asked = asked

    @property
    def usage(self) -> Usage | None:
        """The tokens, once they are known: also of an answer that nobody waits for."""
        return self._run.usage

    @property
    def timings(self) -> Timings | None:
        """How long it took in the engine, once that is known."""
        return self._run.timings

    @property
    def result(self) -> AnswerResult | None:
        """The answer, once it is complete and kept."""
        outcome, asked = self._run.outcome, self._asked
        if outcome is None:
            return None
        return AnswerResult(
            result=outcome.text,
            session_id=asked.session,
            profile=asked.profile.name,
            model=outcome.model,
            usage=outcome.usage,
            finish_reason=outcome.finish_reason,
            turns_in_prompt=outcome.num_turns,
            seed=asked.seed,
            timings=outcome.timings,
        )

    def __iter__(self) -> Iterator[str | None]:
        return self

    def __next__(self) -> str | None:
        event = next(self._run)
        # What the model thinks is not its answer.
        return event.text if isinstance(event, Delta) else None

    def push_to(self, is_ready: Callable[[], bool], push: Callable[[str], None]) -> None:
        """Let the engine's thread hand text to `push`, as `Run.push_to` does."""

        def push_text(piece: Piece) -> None:
            if isinstance(piece, Delta):
                push(piece.text)

        self._run.push_to(is_ready, push_text)

    def close(self) -> None:
        """Give the place back; cancel what is still running and keep what there is of it."""
        self._run.close()


class Answers:
    """Begin answers: read session and profile, build the prompt, submit."""

    def __init__(
        self, runs: Runs, models: ModelNames, sessions: Sessions, *, log_prompts: bool = False
    ) -> None:
        self._runs = runs
        self._models = models
        self._sessions = sessions
        self._log_prompts = log_prompts

    def start(self, owner: str, request: AnswerRequest, is_gone: Callable[[], bool]) -> Answer:
        """Return an answer that is being generated; all that can be refused is refused here.

        Raise the errors of `Runs.start`, `UnknownProfile`, and `Conflict` when the profile is
        made for a model that is not loaded.
        """
        session = None if request.session_id is None else session_id(request.session_id)
        if self._log_prompts:
            log.info("prompt: %s", request.prompt)
        asked: list[Asked] = []

        def plan() -> Plan:
            planned, what = self._plan(owner, session, request)
            asked.append(what)
            return planned

        run = self._runs.start(owner, session, is_gone, plan)
        return Answer(run, asked[0])

    def _plan(self, owner: str, session: str | None, request: AnswerRequest) -> tuple[Plan, Asked]:
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
        planned = engine_request(
            profile,
            prompt.build(profile, turns, request.prompt),
            owner=owner,
            session=session or "",
            num_turns=len(turns),
            has_default_stop=request.stop is None,
        )
        asked = Asked(
            owner=owner,
            session=session,
            request=request,
            profile=stored,
            seed=planned.sampling.seed,
            num_turns=num_turns,
        )

        def keep(outcome: Outcome) -> None:
            _keep_turn(self._sessions, asked, outcome)
            if self._log_prompts:
                log.info("answer: %s", outcome.text)

        return Plan(planned, keep), asked


def _keep_turn(sessions: Sessions, asked: Asked, outcome: Outcome) -> None:
    """Store a turn at the end of its session, if it has one."""
    if asked.session is None or (outcome.finish_reason == "cancelled" and not outcome.text):
        return
    turn = NewTurn(
        user=asked.request.prompt,
        assistant=outcome.text,
        profile=asked.profile.name,
        profile_revision=asked.profile.revision,
        model=outcome.model,
        num_prompt_tokens=outcome.usage.prompt_tokens,
        num_cached_tokens=outcome.usage.prompt_tokens_details.cached_tokens,
        num_completion_tokens=outcome.usage.completion_tokens,
        finish_reason=outcome.finish_reason,
        seed=asked.seed,
        created_at=int(time.time()),
    )
    # A session that was deleted meanwhile must not come back.
    sessions.append(asked.owner, asked.session, turn, must_exist=asked.num_turns > 0)
