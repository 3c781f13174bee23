"""Sequences that wait for a slot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from llmd.worker.scheduling.prefill_budget import PrefillBudget
from llmd.worker.scheduling.sequence import Sequence

MAX_PASSED_OVER = 16
"""How often shorter prompts may be read before a long one."""


def urgency(sequence: Sequence) -> int:
    """Return the sort key of reading: the sequence with the least is read first.

    It is the number of tokens still to be read, so that short prompts do not wait for long ones.
    A sequence that was passed over `MAX_PASSED_OVER` times comes first.
    """
    return sequence.num_unread if sequence.num_passed_over < MAX_PASSED_OVER else 0


class WaitingQueue:
    """The queue for slots: entered in the order of arrival, left by urgency."""

    def __init__(self, budget: PrefillBudget) -> None:
        self._budget = budget
        self._sequences: list[Sequence] = []

    def __len__(self) -> int:
        return len(self._sequences)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._sequences)

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait, with its `num_expected` set."""
        self._sequences.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Remove a sequence that waits."""
        self._sequences.remove(sequence)

    def take(
        self, reading: Iterable[Sequence], admits: Callable[[Sequence], bool]
    ) -> Sequence | None:
        """Remove and return the sequence to read next; None while those `reading` come first.

        Beside these, a step reads only prompts that it reads whole, and no more than it may
        beside answers: together prompts cost less, but the first of them waits for the last. A
        sequence gets a slot only when it is read at once, since what the slot held is saved at
        that moment, and saving many states would delay all of them. A sequence that does not fit
        blocks those behind it.
        """
        if not self._sequences:
            return None
        chosen = min(self._sequences, key=urgency)
        ahead = sum(one.num_unread for one in reading if urgency(one) <= urgency(chosen))
        is_too_much = ahead + chosen.num_unread > self._budget.num_tokens
        if (ahead and is_too_much) or not admits(chosen):
            return None
        for passed_over in self._sequences[: self._sequences.index(chosen)]:
            passed_over.num_passed_over += 1
        self._sequences.remove(chosen)
        return chosen
