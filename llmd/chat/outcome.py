"""What a generation says: its pieces as they come, and what it came to."""

from __future__ import annotations

from msgspec import Struct

from llmd.engine.protocol import Delta, FinishReason, Reasoning, TokenLogprob


class ToolCall(Struct, frozen=True, kw_only=True):
    """A call that the model asks for. `arguments` is JSON text, unless it was cut off."""

    id: str
    name: str
    arguments: str


class CallPiece(Struct, frozen=True, kw_only=True):
    """A tool call begins (`name`), or goes on (`arguments`); `index` counts them from 0."""

    index: int
    id: str
    name: str
    arguments: str


Piece = Delta | Reasoning | CallPiece
"""What a reader of a run gets to see."""


class PromptTokensDetails(Struct, frozen=True, kw_only=True):
    """Prompt tokens that were not computed again."""

    cached_tokens: int


class Usage(Struct, frozen=True, kw_only=True):
    """Numbers of tokens, by the names of OpenAI's API."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails

    @classmethod
    def of(cls, num_prompt: int, num_completion: int, num_cached: int) -> Usage:
        """Return the usage with its total."""
        return cls(
            prompt_tokens=num_prompt,
            completion_tokens=num_completion,
            total_tokens=num_prompt + num_completion,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=num_cached),
        )


class Timings(Struct, frozen=True, kw_only=True):
    """How long the parts of an answer took in the engine, in milliseconds.

    Of the drafted tokens, which were guessed, some were accepted: those cost no step.
    """

    queue_ms: float
    prefill_ms: float
    decode_ms: float
    drafted_tokens: int = 0
    accepted_tokens: int = 0


class Outcome(Struct, frozen=True, kw_only=True):
    """What a generation came to. `num_turns` counts the old turns in its prompt."""

    text: str
    reasoning: str
    calls: list[ToolCall]
    logprobs: list[TokenLogprob]
    finish_reason: FinishReason
    model: str
    usage: Usage
    timings: Timings
    num_turns: int
