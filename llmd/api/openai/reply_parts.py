"""Parts of OpenAI's replies that more than one route sends."""

from __future__ import annotations

from importlib.metadata import version
from typing import Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from llmd.api.openai.idempotency import AnyRun
from llmd.chat.outcome import Outcome, ToolCall
from llmd.engine.protocol import Candidate, FinishReason, TokenLogprob
from llmd.errors import Conflict, InvalidField, PromptTooLong, UnknownModel

PROMPT_ERRORS = (Conflict, InvalidField, PromptTooLong, UnknownModel)
"""Error responses that every operation with a prompt for the model can return."""

FINGERPRINT = f"b{version('llama-cpp-python')}"
"""The field `system_fingerprint`: the version of the engine."""

Finish = Literal["stop", "length", "tool_calls"]
"""The finish reasons that OpenAI's clients know."""

DONE = b"data: [DONE]\n\n"
"""The event that ends every stream that did not end with an error."""


def outcome_of(run: AnyRun) -> Outcome:
    """Return the outcome of a run that was read to its end."""
    outcome = run.outcome
    assert outcome is not None, "the run was not read to its end"  # noqa: S101
    return outcome


def data_event(value: object) -> bytes:
    """Return an event without a name, with JSON data."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def finish_of(reason: FinishReason) -> Finish:
    """Return why an answer ended, as a finish reason that clients know."""
    return "stop" if reason == "cancelled" else reason


class TopLogprob(Struct, frozen=True, kw_only=True):
    """A likely token, with its natural log probability and its bytes."""

    token: str
    logprob: float
    bytes: list[int]


class Logprob(Struct, frozen=True, kw_only=True):
    """The token that was chosen, and the most likely tokens at its position."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class Logprobs(Struct, frozen=True, kw_only=True):
    """Log probabilities of the tokens of a text."""

    content: list[Logprob]
    refusal: None = None


def logprobs_of(logprobs: list[TokenLogprob]) -> Logprobs:
    """Return log probabilities as OpenAI's chat API represents them."""
    return Logprobs(
        content=[
            Logprob(
                token=_text_of(logprob.chosen),
                logprob=logprob.chosen.logprob,
                bytes=list(logprob.chosen.text),
                top_logprobs=[
                    TopLogprob(token=_text_of(top), logprob=top.logprob, bytes=list(top.text))
                    for top in logprob.top
                ],
            )
            for logprob in logprobs
        ]
    )


def _text_of(candidate: Candidate) -> str:
    return candidate.text.decode("utf-8", "replace")


class CalledFunctionReply(Struct, frozen=True, kw_only=True):
    """The function to call. `arguments` is JSON text."""

    name: str
    arguments: str


class ToolCallReply(Struct, frozen=True, kw_only=True):
    """A tool call that the model requests."""

    id: str
    function: CalledFunctionReply
    type: Literal["function"] = "function"


def tool_calls_of(calls: list[ToolCall]) -> list[ToolCallReply] | UnsetType:
    """Return tool calls as a message has them; unset if there are none."""
    if not calls:
        return UNSET
    return [
        ToolCallReply(
            id=call.id, function=CalledFunctionReply(name=call.name, arguments=call.arguments)
        )
        for call in calls
    ]
