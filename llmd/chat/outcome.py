"""The pieces of a generation, and its outcome with the numbers of tokens and the times."""

from __future__ import annotations

from msgspec import Struct

from llmd.engine.protocol import Delta, FinishReason, Reasoning, TokenLogprob


class ToolCall(Struct, frozen=True, kw_only=True):
    """A tool call by the model. `arguments` is JSON text, incomplete if the answer was cut off."""

    id: str
    name: str
    arguments: str


class CallPiece(Struct, frozen=True, kw_only=True):
    """The beginning of a tool call, or more of its `arguments`. `index` counts calls from 0."""

    index: int
    id: str
    name: str
    arguments: str


Piece = Delta | Reasoning | CallPiece
"""The pieces that a run yields."""


class PromptTokensDetails(Struct, frozen=True, kw_only=True):
    """Prompt tokens that did not have to be computed, since their KV state was reused."""

    cached_tokens: int


class Usage(Struct, frozen=True, kw_only=True):
    """Numbers of tokens. The fields are named as in OpenAI's API."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails

    @classmethod
    def of(cls, num_prompt: int, num_completion: int, num_cached: int) -> Usage:
        """Return the usage with the total."""
        return cls(
            prompt_tokens=num_prompt,
            completion_tokens=num_completion,
            total_tokens=num_prompt + num_completion,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=num_cached),
        )


class Timings(Struct, frozen=True, kw_only=True):
    """The times that an answer took in the engine, in milliseconds.

    Drafted tokens were guessed. Accepted ones were guessed correctly and needed no step of their
    own.
    """

    queue_ms: float
    prefill_ms: float
    decode_ms: float
    drafted_tokens: int = 0
    accepted_tokens: int = 0


class Outcome(Struct, frozen=True, kw_only=True):
    """The result of a generation. `num_turns` counts the old turns in its prompt."""

    text: str
    reasoning: str
    calls: list[ToolCall]
    logprobs: list[TokenLogprob]
    finish_reason: FinishReason
    model: str
    usage: Usage
    timings: Timings
    num_turns: int
