"""What the scheduler needs of a model: the seam between arithmetic and llama.cpp."""

from __future__ import annotations

from typing import Any, Protocol

from llmd.engine.protocol import ChatPrompt, Part, Submit, TokenLogprob
from llmd.worker.embedding_backend import EmbeddingBackend
from llmd.worker.scheduling.step_cost import StepTime
from llmd.worker.syntax import Syntax

StateBytes = bytes | memoryview
"""The KV of a slot as it is kept: megabytes, which nobody copies without need."""


class Sampler(Protocol):
    """Choose the tokens of one sequence: holds its random state and its repeat window."""

    logprob: TokenLogprob | None
    """Of the token chosen last, if the request asks for it."""

    def sample(self, output: int) -> int:
        """Return the token chosen from row `output` of the last decode.

        Raise `InvalidField` when the grammar of the answer cannot be followed further.
        """

    @property
    def is_complete(self) -> bool:
        """Whether the grammar of the answer allows nothing more."""

    def close(self) -> None:
        """Free the native memory. Idempotent."""


class Matcher(Protocol):
    """Where an answer is in the grammar that bounds it."""

    def mask(self) -> Any:
        """Return for each token whether it may come next. Raise `InvalidField` when none may."""

    def accept(self, token: int) -> None:
        """Go on by a token. Raise `InvalidField` when the grammar becomes too complex."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing but the end can follow."""


class Backend(Protocol):
    """One model with its KV memory of `max_sequences` slots. For one thread only."""

    num_context_tokens: int
    """Tokens that one slot holds."""
    num_cells: int
    """Tokens that all slots together hold; 0: each holds its own, whatever the others do."""
    max_sequences: int
    max_batch_tokens: int
    """Tokens that one decode takes: one of every slot at least."""
    max_output_rows: int
    """Tokens of one decode whose logits can be had."""
    max_draft_tokens: int
    """How many tokens of a sequence are guessed at most; 0 when they could not be taken back."""
    computes_in_fours: bool
    """Whether a step is done sooner with a multiple of four rows than with one less."""
    step_time: StepTime
    num_vocabulary: int
    syntax: Syntax
    """How the model writes tool calls and thoughts."""

    def tokenize(
        self, parts: list[Part], *, begin: bool = True, owner: str | None = None
    ) -> list[int]:
        """Return the tokens of a text; only literal parts can give special tokens.

        A prompt begins with the model's first token, if it has one. What an owner's texts give
        is kept for the next time.
        """

    def forget(self, owner: str) -> None:
        """Drop what is kept of an owner's texts."""

    def render(self, prompt: ChatPrompt) -> list[Part]:
        """Return the text of the model's own chat template, ready for the answer.

        Raise `InvalidField` when the template refuses the messages or takes too long.
        """

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return the bytes that a token stands for; of a special token only when asked so."""

    def is_end(self, token: int) -> bool:
        """Tell whether the model ends its answer with this token."""

    def compile(self, request: Submit, *, is_thinking: bool) -> Matcher | None:
        """Return what bounds the answer, if anything does. The one method for any thread.

        Raise `InvalidField` when the grammar, schema or tools of the request cannot be kept.
        """

    def sampler(self, request: Submit, recent: list[int], matcher: Matcher | None) -> Sampler:
        """Return a new sampler whose repeat window begins with the `recent` tokens."""

    def add(self, token: int, position: int, slot: int, *, output: bool) -> None:
        """Put a token into the next batch. With `output` its logits are wanted."""

    def decode(self) -> float:
        """Run the batch and empty it; return the seconds that took.

        Raise `EngineFailed` when llama.cpp cannot go on.
        """

    def truncate(self, slot: int, num_tokens: int) -> int:
        """Keep at most the first `num_tokens` of a slot's KV; return how many it kept."""

    def save(self, slot: int) -> StateBytes:
        """Return the slot's KV as bytes."""

    def load(self, slot: int, state: StateBytes) -> bool:
        """Put KV bytes from `save` into a slot; False when they do not fit."""

    def make_embedder(self) -> EmbeddingBackend:
        """Return what makes vectors by the same model. Raise as making a context does."""
