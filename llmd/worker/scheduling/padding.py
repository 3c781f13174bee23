"""Padding: rows without a meaning, added where a step is faster with them than without.

llama.cpp arranges the weights of most quantisations so that four rows are multiplied with them at
once. Rows beyond a multiple of four are computed one by one, and each costs nearly as much as
four: on two cores, seven answers side by side take a quarter more time than eight. Besides,
slots that are not neighbours are computed in passes of their own. Idle slots can close such gaps:
a token is added behind what they hold, and taken back after the step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from llmd.worker.scheduling.step_cost import GROUP, StepCost

MAX_TAIL = 8
"""At most 8 tokens of padding behind a prompt: more cost as much as another pass."""


def padding_slots(
    cost: StepCost, slots: list[int], idle: Collection[int], num_each: int = 1
) -> list[int]:
    """Return the idle slots to pad, so that `slots`, in order, are computed at the least cost.

    Every slot takes `num_each` tokens. The result is empty where padding costs more than it saves.
    """
    span = slots[-1] - slots[0] + 1
    best: list[int] = []
    least_s = sum(cost.pass_s(length * num_each) for length in _runs(slots))
    for size in range(span, span + GROUP):
        cost_s = cost.pass_s(size * num_each)
        if cost_s < least_s and (missing := _missing(slots, idle, size)) is not None:
            best, least_s = missing, cost_s
    return best


def _runs(slots: list[int]) -> Iterable[int]:
    """Yield the length of each run of neighbouring slots."""
    begin = 0
    for index in range(1, len(slots) + 1):
        if index == len(slots) or slots[index] != slots[index - 1] + 1:
            yield index - begin
            begin = index


def _missing(slots: list[int], idle: Collection[int], size: int) -> list[int] | None:
    """Return the idle slots that complete a run of `size`; None if there is none."""
    used = set(slots)
    for begin in range(slots[-1] - size + 1, slots[0] + 1):
        missing = [slot for slot in range(begin, begin + size) if slot not in used]
        if all(slot in idle for slot in missing):
            return missing
    return None


def tail_lengths(cost: StepCost, lengths: list[int]) -> list[int]:
    """Return how many tokens of padding to add behind each of the chunks that a step reads.

    A chunk nearly as long as the longest is made as long, since a longer one would otherwise be
    read to its end in a pass of its own. The others are completed to full groups.
    """
    padded = [cost.padded_rows(length) for length in lengths]
    longest = max(padded, default=0)
    return [
        longest - length if longest - length <= MAX_TAIL else rounded - length
        for length, rounded in zip(lengths, padded, strict=True)
    ]
