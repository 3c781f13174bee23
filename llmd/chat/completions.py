"""Complete a conversation or a text that the client sends as a whole."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from llmd.chat import prompt
from llmd.chat.engine_request import build_engine_request
from llmd.chat.model_names import ModelNames
from llmd.chat.outcome import Outcome
from llmd.chat.run import Plan, Run, Runs
from llmd.engine.engine import Request
from llmd.engine.protocol import (
    Constraint,
    Ending,
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
    """Messages, of which the last one is to be answered, and tools that the answer may call.

    `variables` is a JSON object of further values for the model's chat template. With the `ending`
    ``content`` or ``reasoning`` the answer continues the last message, which is the model's own.
    """

    messages: list[Message]
    tools: Tools | None = None
    variables: str = "{}"
    ending: Ending = "answer"


class Options(Struct, frozen=True, kw_only=True):
    """Options of a request that do not depend on the kind of input.

    `changes` are fields that override the profile for this request. `affinity` names a
    conversation of the owner, so that the engine can find its KV state.
    """

    model: str
    changes: dict[str, Any] = {}
    logit_bias: dict[int, float] = {}
    constraint: Constraint | None = None
    num_logprobs: int | None = None
    affinity: str = ""


Ask = Conversation | str | list[int]
"""The input of a completion: a conversation, or a text or tokens to be continued as they are."""


class Completions:
    """Begin completions. Nothing is stored of them."""

    def __init__(self, runs: Runs, models: ModelNames, *, log_prompts: bool = False) -> None:
        self._runs = runs
        self._models = models
        self._log_prompts = log_prompts

    def start(self, owner: str, ask: Ask, options: Options, is_gone: Callable[[], bool]) -> Run:
        """Begin a generation, and return its run once the engine has accepted the prompt.

        Raise the errors of `Runs.start` and `ModelNames.resolve`, and `InvalidField`.
        """
        # Before the request is queued: an unknown name is reported at once.
        profile = changed(self._models.resolve(options.model).profile, options)
        if self._log_prompts:
            log.info("prompt: %s", _shown(ask))

        def keep(outcome: Outcome) -> None:
            if self._log_prompts:
                log.info("answer: %s", outcome.text)

        request = request_for(owner, options.affinity, ask, profile, options)
        return self._runs.start(owner, None, is_gone, lambda: Plan(request, keep))


def changed(profile: Profile, options: Options) -> Profile:
    """Return a profile with the changes of a request. Raise `InvalidField`."""
    if not options.changes:
        return profile
    return read_profile(msgspec.to_builtins(profile) | options.changes)


def request_for(owner: str, session: str, ask: Ask, profile: Profile, options: Options) -> Request:
    """Return the request for the engine."""
    is_chat = isinstance(ask, Conversation)
    return build_engine_request(
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
        return prompt.build_messages(profile, ask.messages, ask.tools, ask.variables, ask.ending)
    if isinstance(ask, str):
        # The client wrote all of it, so it may spell out special tokens.
        return TextPrompt([Part(text=ask, literal=True)])
    return TokenPrompt(ask)


def _shown(ask: Ask) -> str:
    if isinstance(ask, Conversation):
        return ask.messages[-1].content
    return ask if isinstance(ask, str) else f"{len(ask)} tokens"
