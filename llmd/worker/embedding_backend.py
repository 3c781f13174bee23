"""What the queue of embeddings needs of a model: the seam between arithmetic and llama.cpp."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Chunk:
    """The next tokens of an input, from its token `begin` on. Inputs in progress have own slots."""

    slot: int
    begin: int
    tokens: list[int]
    is_last: bool


class EmbeddingBackend(Protocol):
    """One model that makes vectors. For one thread only."""

    num_vocabulary: int
    num_dimensions: int
    max_input_tokens: int
    max_batch_tokens: int
    """Tokens that one run takes; one input alone may have more where inputs are not split."""
    max_sequences: int
    """Slots, two or more. Beside an input in chunks all have room for `max_batch_tokens`."""
    can_split: bool
    """Whether an input may come in several chunks, by several runs, in one slot."""
    sums_tokens: bool
    """Whether the vectors of an input's chunks are to be added up; else the last one counts."""

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of an input, with all that the model wants around it."""

    def run(self, chunks: list[Chunk]) -> list[Vector]:
        """Return a vector for each chunk, of any length.

        Raise `EngineFailed` when llama.cpp cannot go on.
        """
