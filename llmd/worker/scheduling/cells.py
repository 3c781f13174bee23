"""The cells of a KV memory that all sequences share: who fits, and who has to go."""

from __future__ import annotations

import sys
from collections.abc import Collection

from llmd.worker.scheduling.sequence import Sequence

HEADROOM = 32
"""Tokens that there must be room for beyond a prompt, beside others: who has just been let in
would have to go again.
"""


class Cells:
    """How many cells there are: as many as anybody wants where each slot has its own."""

    def __init__(self, num_cells: int, max_draft_tokens: int) -> None:
        self._num_cells = num_cells or sys.maxsize
        self._num_ahead = 1 + max_draft_tokens

    def left_by(self, running: Collection[Sequence]) -> int:
        """Return the cells for others; negative when there are too few for these."""
        return self._num_cells - sum(map(self._wanted, running))

    def admits(self, sequence: Sequence, running: Collection[Sequence]) -> bool:
        """Tell whether a sequence may run beside these. Alone it always may."""
        return not running or self._wanted(sequence) + HEADROOM <= self.left_by(running)

    def _wanted(self, sequence: Sequence) -> int:
        """Return the cells that a sequence has taken at the end of a step, at most."""
        return min(len(sequence.tokens) + self._num_ahead, sequence.num_context_tokens)
