"""The shapes of OpenAI's answers that more than one route has."""

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
"""Which build of the engine answered."""

Finish = Literal["stop", "length", "tool_calls"]

DONE = b"data: [DONE]\n\n"


def outcome_of(run: AnyRun) -> Outcome:
    """Return what a run came to that was taken to its end."""
    outcome = run.outcome
    assert outcome is not None, "the run was not taken to its end"  # noqa: S101
    return outcome


def data_event(value: object) -> bytes:
    """Return an event without name."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def finish_of(reason: FinishReason) -> Finish:
    """Return why an answer ended, in the words that clients know."""
    return "stop" if reason == "cancelled" else reason


class TopLogprob(Struct, frozen=True, kw_only=True):
    """A token that was likely, with its natural log probability and its bytes."""

    token: str
    logprob: float
    bytes: list[int]


class Logprob(Struct, frozen=True, kw_only=True):
    """The token that was chosen, and the likeliest in its place."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class Logprobs(Struct, frozen=True, kw_only=True):
    """Log probabilities of the tokens of a text."""

    content: list[Logprob]
    refusal: None = None


def logprobs_of(logprobs: list[TokenLogprob]) -> Logprobs:
    """Return log probabilities as a chat has them."""
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
    """The function to call: `arguments` is JSON text."""

    name: str
    arguments: str


class ToolCallReply(Struct, frozen=True, kw_only=True):
    """A call that the model asks for."""

    id: str
    function: CalledFunctionReply
    type: Literal["function"] = "function"


def tool_calls_of(calls: list[ToolCall]) -> list[ToolCallReply] | UnsetType:
    """Return calls as a message has them; no field where there is none."""
    if not calls:
        return UNSET
    return [
        ToolCallReply(
            id=call.id, function=CalledFunctionReply(name=call.name, arguments=call.arguments)
        )
        for call in calls
    ]
