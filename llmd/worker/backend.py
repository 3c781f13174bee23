"""What the scheduler needs of a model: the seam between arithmetic and llama.cpp."""

from __future__ import annotations

from typing import Protocol

from llmd.engine.protocol import Message, Part, Sampling


class Sampler(Protocol):
    """Choose the tokens of one sequence: holds its random state and its repeat window."""

    def sample(self, output: int) -> int:
        """Return the token chosen from row `output` of the last decode."""

    def close(self) -> None:
        """Free the native memory. Idempotent."""


class Backend(Protocol):
    """One model with its KV memory of `max_sequences` slots. For one thread only."""

    num_context_tokens: int
    """Tokens that one slot holds."""
    max_sequences: int
    max_batch_tokens: int
    """Tokens that one decode takes."""

    def tokenize(self, parts: list[Part]) -> list[int]:
        """Return the tokens of the joined text; only literal parts can give special tokens."""

    def render(self, messages: list[Message]) -> list[Part]:
        """Return the text of the model's own chat template, ready for the answer.

        Raise `InvalidField` when the template refuses the messages or takes too long.
        """

    def piece(self, token: int) -> bytes:
        """Return the bytes that a token stands for; none for a special token."""

    def is_end(self, token: int) -> bool:
        """Tell whether the model ends its answer with this token."""

    def sampler(self, sampling: Sampling, recent: list[int]) -> Sampler:
        """Return a new sampler whose repeat window begins with the `recent` tokens."""

    def add(self, token: int, position: int, slot: int, *, output: bool) -> None:
        """Put a token into the next batch. With `output` its logits are wanted."""

    def decode(self) -> None:
        """Run the batch and empty it. Raise `EngineFailed` when llama.cpp cannot go on."""

    def truncate(self, slot: int, num_tokens: int) -> int:
        """Keep at most the first `num_tokens` of a slot's KV; return how many it kept."""

    def save(self, slot: int) -> bytes:
        """Return the slot's KV as bytes."""

    def load(self, slot: int, state: bytes) -> bool:
        """Put KV bytes from `save` into a slot; False when they do not fit."""
