"""The main job: begin to answer a prompt, within a session or without."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable

from llmd.chat import prompt, window
from llmd.chat.admission import Admission
from llmd.chat.answer import Answer
from llmd.chat.request import AnswerRequest
from llmd.engine.engine import Engine, Request
from llmd.engine.protocol import Sampling
from llmd.errors import Conflict
from llmd.store.profiles import Profile, Profiles, StoredProfile
from llmd.store.sessions import Sessions, session_id
from llmd.store.settings import Settings

log = logging.getLogger(__name__)


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
            max_turns = profile.history_turns if prompt.takes_history(profile) else 0
            kept = window.num_kept(num_turns, max_turns)
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
                    stop=_stop(profile, request),
                )
            )
            answer = Answer(
                owner=owner,
                session=session,
                request=request,
                profile=stored,
                seed=seed,
                num_turns=num_turns,
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


def _stop(profile: Profile, request: AnswerRequest) -> list[str]:
    """Return the stop strings; a request can switch the default ones off by an empty list."""
    if profile.stop or request.stop is not None:
        return list(profile.stop)
    return prompt.default_stop(profile)


def _sampling(profile: Profile, seed: int) -> Sampling:
    return Sampling(
        temperature=profile.temperature,
        top_p=profile.top_p,
        top_k=profile.top_k,
        min_p=profile.min_p,
        repeat_penalty=profile.repeat_penalty,
        seed=seed,
    )
