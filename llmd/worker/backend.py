"""The interface to a model: between the scheduler, which is arithmetic, and llama.cpp."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from llmd.engine.protocol import ChatPrompt, Part, Submit, TokenLogprob
from llmd.worker.syntax import Syntax

StateBytes = bytes | memoryview
"""The keys and values of a slot as bytes: megabytes, which must not be copied without need."""


class Sampler(Protocol):
    """The sampler of one sequence, with its random state and its window of recent tokens."""

    logprob: TokenLogprob | None
    """The log probability of the token sampled last, if the request asks for it."""

    def sample(self, output: int) -> int:
        """Return the token sampled from row `output` of the last decode.

        Raise `InvalidField` when no token follows the grammar of the answer.
        """

    @property
    def is_complete(self) -> bool:
        """Whether the answer is complete: its grammar allows no further token."""

    def close(self) -> None:
        """Free the native memory. Idempotent."""


class Matcher(Protocol):
    """The position of an answer in its grammar."""

    def mask(self) -> Any:
        """Return for each token whether it may come next. Raise `InvalidField` if none may."""

    def accept(self, token: int) -> None:
        """Advance by a token. Raise `InvalidField` if the grammar becomes too complex."""

    @property
    def is_complete(self) -> bool:
        """Whether only the end can follow."""


Vector = NDArray[np.float32]


@dataclass(frozen=True)
class EmbeddingChunk:
    """Consecutive tokens of one input. Each input in progress has a slot of its own."""

    slot: int
    begin: int
    """Index of the chunk's first token within the input."""
    tokens: list[int]
    is_last: bool


class EmbeddingBackend(Protocol):
    """A model that computes vectors. Not thread-safe."""

    num_vocabulary: int
    num_dimensions: int
    max_input_tokens: int
    max_batch_tokens: int
    """Tokens that one run takes. A single input may have more if the backend cannot split."""
    max_sequences: int
    """Number of slots, at least two. Beside one input in chunks, `max_batch_tokens` more fit."""
    can_split: bool
    """Whether the chunks of an input may be computed in several runs, in the same slot."""
    sums_tokens: bool
    """Whether the vectors of an input's chunks have to be added. If not, the last one counts."""

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of an input, with the special tokens that the model expects."""

    def run(self, chunks: list[EmbeddingChunk]) -> list[Vector]:
        """Return a vector for each chunk, not normalised.

        Raise `EngineFailed` when llama.cpp fails.
        """


class Backend(Protocol):
    """One model with its KV memory of `max_sequences` slots. For one thread only."""

    num_context_tokens: int
    """The number of tokens that one slot holds."""
    num_cells: int
    """The number of tokens that all slots share; 0 if each slot has cells of its own."""
    max_sequences: int
    max_batch_tokens: int
    """The number of tokens that one decode takes: at least one of every slot."""
    max_output_rows: int
    """The number of tokens of one decode that can have logits."""
    max_draft_tokens: int
    """The longest draft of a sequence; 0 if drafted tokens could not be taken back."""
    can_truncate: bool
    """Whether a slot can be cut back to any number of tokens: not where layers are recurrent."""
    window: int
    """The number of positions that a windowed layer looks back; 0 without such layers."""
    can_pad: bool
    """Whether tokens can be added to any slot for one decode, and taken back after it."""
    attention_share: float
    """How much more a row costs with each token before it, as a share of what its weights cost."""
    measured_steps_s: dict[int, float]
    """The seconds that a decode takes by its number of rows, measured at the start."""
    num_vocabulary: int
    syntax: Syntax
    """How the model marks thoughts and tool calls."""

    def tokenize(
        self, parts: list[Part], *, begin: bool = True, owner: str | None = None
    ) -> list[int]:
        """Return the tokens of a text; only literal parts can become special tokens.

        With `begin`, they start with the model's first token, if it has one. The tokens of an
        owner's texts are cached.
        """

    def forget(self, owner: str) -> None:
        """Drop the cached tokens of an owner's texts."""

    def render(self, prompt: ChatPrompt) -> list[Part]:
        """Return the prompt as rendered by the model's own chat template.

        Raise `InvalidField` if the template refuses the messages or takes too long.
        """

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return the bytes of a token; of a special token only with `special`."""

    def is_end(self, token: int) -> bool:
        """Return whether the model ends its answer with this token."""

    def compile(self, request: Submit, *, is_thinking: bool) -> Matcher | None:
        """Return the matcher of the answer's grammar, if it has one. For any thread.

        Raise `InvalidField` if the grammar, schema or tools of the request cannot be compiled.
        """

    def sampler(self, request: Submit, recent: list[int], matcher: Matcher | None) -> Sampler:
        """Return a new sampler whose window of recent tokens begins with `recent`."""

    def add(self, token: int, position: int, slot: int, *, output: bool) -> None:
        """Add a token to the next batch. With `output`, it gets logits."""

    def decode(self) -> float:
        """Run the batch and empty it; return the seconds that it took.

        Raise `EngineFailed` if llama.cpp fails.
        """

    def truncate(self, slot: int, num_tokens: int) -> int:
        """Keep at most the first `num_tokens` of a slot; return how many were kept."""

    def first_cell(self, slot: int) -> int:
        """Return the first position from which on all cells are there, in windowed layers too."""

    def save_checkpoint(self, slot: int) -> StateBytes:
        """Return the part of a slot that cannot be cut back: recurrent and windowed layers."""

    def load_checkpoint(self, slot: int, state: StateBytes) -> bool:
        """Load what `save_checkpoint` returned over a slot; return False if it does not fit.

        `truncate` must follow, to the number of tokens that the slot held when it was saved.
        """

    def save(self, slot: int) -> StateBytes:
        """Return the keys and values of a slot."""

    def load(self, slot: int, state: StateBytes) -> bool:
        """Load what `save` returned into a slot; return False if it does not fit."""

    def make_embedder(self) -> EmbeddingBackend:
        """Return an embedding backend of the same model. Raise `EngineFailed` or `InvalidField`."""
