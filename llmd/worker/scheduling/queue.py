"""Sequences that wait for their turn to be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from llmd.worker.scheduling.prefill_budget import ReadLimit
from llmd.worker.scheduling.sequence import Sequence

MAX_WAITS = 16
"""How often shorter prompts may go before a long one."""


def urgency(sequence: Sequence) -> int:
    """Return what decides who is read first, the least: the tokens that are still to be read.

    Those who wait for little are not held up by those who wait for much. Who has waited long
    enough is not passed over any more.
    """
    return sequence.num_uncomputed if sequence.num_waits < MAX_WAITS else 0


class Waiting:
    """The queue for slots: in the order of arrival, left by urgency."""

    def __init__(self, limit: ReadLimit) -> None:
        self._limit = limit
        self._sequences: list[Sequence] = []

    def __len__(self) -> int:
        return len(self._sequences)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._sequences)

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait. Its `num_computed` is what it is expected to find in KV memory."""
        self._sequences.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take out a sequence that waits."""
        self._sequences.remove(sequence)

    def take(
        self, reading: Iterable[Sequence], admits: Callable[[Sequence], bool]
    ) -> Sequence | None:
        """Take out who is to be read next; None if the prompts that are `reading` come first.

        Beside these a step reads only what is read as a whole, and no more than it may beside
        answers: prompts cost less together than apart, but the first waits for the last. A slot is
        given only to who is read at once: what it held is saved then, and to save many would hold
        up all of them. Who is not admitted yet is not passed over either.
        """
        if not self._sequences:
            return None
        chosen = min(self._sequences, key=urgency)
        ahead = sum(one.num_uncomputed for one in reading if urgency(one) <= urgency(chosen))
        is_too_much = ahead + chosen.num_uncomputed > self._limit.num_tokens
        if (ahead and is_too_much) or not admits(chosen):
            return None
        for passed_over in self._sequences[: self._sequences.index(chosen)]:
            passed_over.num_waits += 1
        self._sequences.remove(chosen)
        return chosen
