"""How many tokens of prompts a step may read while answers wait for their next."""

from __future__ import annotations

MAX_PAUSE_S = 0.5
"""What such a step should take at most: it is a pause in every answer."""

MIN_READ = 64
"""Fewer tokens at a time cost too much: the weights are read for each step anew."""

FIRST_READ = 256
"""Before anything was measured."""

_GRAIN = 32
"""AMX multiplies by tiles of 32 rows, and what is left of a tile is wasted."""


class ReadLimit:
    """As many tokens as the model reads in `MAX_PAUSE_S` by what it took so far.

    A small model reads hundreds in that time, a large one would need minutes for a whole batch.
    """

    def __init__(self, max_batch_tokens: int) -> None:
        self._max = max_batch_tokens
        self._num_fitting = float(FIRST_READ)
        self.num_tokens = min(FIRST_READ, max_batch_tokens)

    def learn(self, num_read: int, step_s: float) -> None:
        """Note that a step read so many tokens of prompts, and how long it took."""
        # Of a few tokens most of the time is that of the pass, however many they are.
        if step_s <= 0 or 2 * num_read < self.num_tokens:
            return
        num_fitting = min(MAX_PAUSE_S * num_read / step_s, 2 * self._max)
        self._num_fitting = (self._num_fitting + num_fitting) / 2
        num_tokens = int(self._num_fitting) // _GRAIN * _GRAIN
        self.num_tokens = min(max(num_tokens, MIN_READ), self._max)
