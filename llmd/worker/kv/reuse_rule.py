"""The rule of reuse: how much of a kept state serves another prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmd.worker.backend import StateBytes


@dataclass(frozen=True)
class Checkpoint:
    """What a model's memory held that cannot be cut back, after the first `num_tokens`."""

    num_tokens: int
    data: StateBytes


@dataclass(frozen=True)
class Reuse:
    """A use of a kept state: its first `num_tokens`.

    With `from_checkpoint`, the checkpoint of so many tokens must be loaded over the state, before
    the rest is cut off.
    """

    num_tokens: int
    from_checkpoint: bool = False


NO_REUSE = Reuse(0)


@dataclass(frozen=True)
class ReuseRule:
    """What a model's memory allows.

    `can_truncate` says whether the memory can be cut back to any number of tokens: recurrent
    layers hold one state, of the last token alone. `window` is the number of positions that a
    windowed layer looks back, 0 without such layers: their older cells may be gone.
    """

    can_truncate: bool
    window: int

    @property
    def needs_checkpoints(self) -> bool:
        """Whether a kept state may serve only some of the prefixes of its tokens."""
        return not self.can_truncate or self.window > 0

    def apply(
        self, num_shared: int, num_held: int, first_cell: int, checkpoints: Sequence[int]
    ) -> Reuse:
        """Return the best use for a prompt that shares `num_shared` tokens with a state.

        The state holds `num_held` tokens. All cells from position `first_cell` on are there, in
        windowed layers too. `checkpoints` are the numbers of tokens that it has checkpoints of.

        The next token, at position `num_tokens`, looks at `window` positions up to its own.
        """
        if num_shared == num_held:
            return Reuse(num_shared)
        if self.can_truncate and first_cell <= max(0, num_shared - self.window):
            return Reuse(num_shared)
        best = max((number for number in checkpoints if number <= num_shared), default=0)
        return Reuse(best, from_checkpoint=best > 0)
