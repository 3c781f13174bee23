"""Answer a conversation, or go on with a text, that the client brings along as a whole."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from llmd.chat import prompt
from llmd.chat.engine_request import engine_request
from llmd.chat.model_names import ModelNames
from llmd.chat.outcome import Outcome
from llmd.chat.run import Plan, Run, Runs
from llmd.engine.engine import Request
from llmd.engine.protocol import (
    Constraint,
    Message,
    Part,
    Prompt,
    TextPrompt,
    TokenPrompt,
    Tools,
)
from llmd.store.profiles import Profile, read_profile

log = logging.getLogger(__name__)


class Conversation(Struct, frozen=True, kw_only=True):
    """Messages of which the last is to be answered, perhaps by calls of tools.

    `variables` is a JSON object of further values for the model's chat template.
    """

    messages: list[Message]
    tools: Tools | None = None
    variables: str = "{}"


class Options(Struct, frozen=True, kw_only=True):
    """How to answer, whatever is asked.

    `changes` are fields of the profile for this once. `affinity` names a conversation of the
    owner, so that the engine knows which of what it keeps warm is meant.
    """

    model: str
    changes: dict[str, Any] = {}
    logit_bias: dict[int, float] = {}
    constraint: Constraint | None = None
    num_logprobs: int | None = None
    affinity: str = ""


Ask = Conversation | str | list[int]
"""A conversation; or a text or tokens to go on with, as they are."""


class Completions:
    """Begin completions: nothing of them is stored."""

    def __init__(self, runs: Runs, models: ModelNames, *, log_prompts: bool = False) -> None:
        self._runs = runs
        self._models = models
        self._log_prompts = log_prompts

    def start(self, owner: str, ask: Ask, options: Options, is_gone: Callable[[], bool]) -> Run:
        """Return a run that generates; all that can be refused is refused here.

        Raise the errors of `Runs.start` and `ModelNames.resolve`, and `InvalidField`.
        """
        # Before anything waits: who named what is not there shall hear it at once.
        profile = changed(self._models.resolve(options.model).profile, options)
        if self._log_prompts:
            log.info("prompt: %s", _shown(ask))

        def keep(outcome: Outcome) -> None:
            if self._log_prompts:
                log.info("answer: %s", outcome.text)

        request = request_for(owner, options.affinity, ask, profile, options)
        return self._runs.start(owner, None, is_gone, lambda: Plan(request, keep))


def changed(profile: Profile, options: Options) -> Profile:
    """Return a profile with this request's changes, or raise `InvalidField`."""
    if not options.changes:
        return profile
    return read_profile(msgspec.to_builtins(profile) | options.changes)


def request_for(owner: str, session: str, ask: Ask, profile: Profile, options: Options) -> Request:
    """Return what the engine is asked."""
    is_chat = isinstance(ask, Conversation)
    return engine_request(
        profile,
        _prompt(ask, profile),
        owner=owner,
        session=session,
        has_default_stop=is_chat and "stop" not in options.changes,
        logit_bias=options.logit_bias,
        constraint=options.constraint,
        num_logprobs=options.num_logprobs,
    )


def _prompt(ask: Ask, profile: Profile) -> Prompt:
    if isinstance(ask, Conversation):
        return prompt.build_messages(profile, ask.messages, ask.tools, ask.variables)
    if isinstance(ask, str):
        # Nobody else's words are in it: the client may spell the model's special tokens.
        return TextPrompt([Part(text=ask, literal=True)])
    return TokenPrompt(ask)


def _shown(ask: Ask) -> str:
    if isinstance(ask, Conversation):
        return ask.messages[-1].content
    return ask if isinstance(ask, str) else f"{len(ask)} tokens"
