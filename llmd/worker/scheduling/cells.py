"""The cells of a KV memory that all sequences share: which sequences fit, and which must wait."""

from __future__ import annotations

import sys
from collections.abc import Collection

from llmd.worker.scheduling.sequence import Sequence

HEADROOM = 32
"""Free cells that a new sequence needs beyond its prompt, beside others.

Without them it would have to be set aside again after a few steps.
"""


class Cells:
    """The budget of cells; unlimited where each slot has cells of its own."""

    def __init__(self, num_cells: int, max_draft_tokens: int) -> None:
        """Take the number of cells, 0 where each slot has its own."""
        self._num_cells = num_cells or sys.maxsize
        self._num_ahead = 1 + max_draft_tokens

    def left_by(self, running: Collection[Sequence]) -> int:
        """Return the cells left for others; negative when even these sequences have too few."""
        return self._num_cells - sum(map(self._needed, running))

    def admits(self, sequence: Sequence, running: Collection[Sequence]) -> bool:
        """Return whether a sequence may run beside these. Alone it always may."""
        return not running or self._needed(sequence) + HEADROOM <= self.left_by(running)

    def _needed(self, sequence: Sequence) -> int:
        """Return the most cells that a sequence can hold at the end of the next step."""
        return min(len(sequence.tokens) + self._num_ahead, sequence.num_context_tokens)
