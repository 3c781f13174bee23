"""The interface between the queue of embeddings and llama.cpp.

The queue works with any `EmbeddingBackend`, so its tests need no model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Chunk:
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

    def run(self, chunks: list[Chunk]) -> list[Vector]:
        """Return a vector for each chunk, not normalised.

        Raise `EngineFailed` when llama.cpp fails.
        """
