"""The main job: begin to answer a prompt, within a session or without."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable

from llmd.chat import prompt, window
from llmd.chat.answer import Answer, Asked, keep_turn
from llmd.chat.answer_request import AnswerRequest
from llmd.chat.model_names import ModelIds
from llmd.chat.outcome import Outcome
from llmd.chat.run import Plan, Runs
from llmd.engine.engine import Request
from llmd.engine.protocol import Sampling
from llmd.store.profiles import Profile
from llmd.store.sessions import Sessions, session_id

log = logging.getLogger(__name__)


class Answers:
    """Begin answers: read session and profile, build the prompt, submit."""

    def __init__(
        self, runs: Runs, models: ModelIds, sessions: Sessions, *, log_prompts: bool = False
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
        kept = window.num_kept(num_turns, max_turns)
        turns = turns[len(turns) - kept :]
        asked = Asked(
            owner=owner,
            session=session,
            request=request,
            profile=stored,
            seed=seed_of(profile),
            num_turns=num_turns,
        )
        engine_request = Request(
            owner=owner,
            session=session or "",
            prompt=prompt.build(profile, turns, request.prompt),
            num_turns=len(turns),
            sampling=sampling_of(profile, asked.seed),
            max_tokens=profile.max_tokens,
            max_context_tokens=profile.n_ctx,
            stop=_stop(profile, request),
        )

        def keep(outcome: Outcome) -> None:
            keep_turn(self._sessions, asked, outcome)
            if self._log_prompts:
                log.info("answer: %s", outcome.text)

        return Plan(engine_request, keep), asked


def seed_of(profile: Profile) -> int:
    """Return the profile's seed, or one that nobody can foretell."""
    return secrets.randbelow(2**32 - 1) if profile.seed is None else profile.seed


def sampling_of(
    profile: Profile, seed: int, logit_bias: dict[int, float] | None = None
) -> Sampling:
    """Return how tokens are chosen by a profile."""
    return Sampling(
        temperature=profile.temperature,
        top_p=profile.top_p,
        top_k=profile.top_k,
        min_p=profile.min_p,
        repeat_penalty=profile.repeat_penalty,
        presence_penalty=profile.presence_penalty,
        frequency_penalty=profile.frequency_penalty,
        seed=seed,
        logit_bias=logit_bias or {},
    )


def _stop(profile: Profile, request: AnswerRequest) -> list[str]:
    """Return the stop strings; a request can switch the default ones off by an empty list."""
    if profile.stop or request.stop is not None:
        return list(profile.stop)
    return prompt.default_stop(profile)
