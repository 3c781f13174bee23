"""How many tokens of prompts a step may read while answers wait for their next token."""

from __future__ import annotations

from llmd.worker.scheduling.step_cost import TILE_ROWS

MAX_PAUSE_S = 0.5
"""The longest that such a step should take: it is a pause in every running answer."""

MIN_READ = 64
"""Reading fewer tokens at a time costs too much, since every step reads all weights."""

FIRST_READ = 256
"""The number of tokens to read before anything was measured."""


class PrefillBudget:
    """The number of tokens that the model reads in `MAX_PAUSE_S`, learned from the steps so far.

    A small model reads hundreds of tokens in that time; a large one would take minutes for a
    full batch.
    """

    def __init__(self, max_batch_tokens: int) -> None:
        self._max = max_batch_tokens
        self._num_fitting = float(FIRST_READ)
        self.num_tokens = min(FIRST_READ, max_batch_tokens)

    def record(self, num_read: int, step_s: float) -> None:
        """Learn from a step that read `num_read` tokens of prompts."""
        # A step of few tokens says little: most of its time is that of reading the weights.
        if step_s <= 0 or 2 * num_read < self.num_tokens:
            return
        num_fitting = min(MAX_PAUSE_S * num_read / step_s, 2 * self._max)
        self._num_fitting = (self._num_fitting + num_fitting) / 2
        num_tokens = int(self._num_fitting) // TILE_ROWS * TILE_ROWS
        self.num_tokens = min(max(num_tokens, MIN_READ), self._max)
