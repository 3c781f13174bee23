"""A KV state outside of the slots."""

from __future__ import annotations

from dataclasses import dataclass

from llmd.worker.backend import StateBytes
from llmd.worker.kv.reuse_rule import Checkpoint


@dataclass(frozen=True)
class SavedState:
    """The keys and values of a slot's tokens, as bytes, with what decides about their reuse.

    `first_cell` is the first position from which on all cells are there, in windowed layers too.
    """

    data: StateBytes
    first_cell: int = 0
    checkpoints: tuple[Checkpoint, ...] = ()

    @property
    def num_bytes(self) -> int:
        """The size of the state with its checkpoints."""
        return len(self.data) + sum(len(one.data) for one in self.checkpoints)
