"""What an answer took: tokens, and time in the engine."""

from __future__ import annotations

from msgspec import Struct


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
