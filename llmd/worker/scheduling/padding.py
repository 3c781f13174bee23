"""Rows that nobody asked for, where a step is done sooner with them than without.

llama.cpp lays the weights of most quantisations out so that four rows are multiplied with them at
once. What is left over it takes one by one, and each costs nearly as much as four: on two cores
seven answers side by side take a quarter more time than eight. Besides, slots that are not
neighbours are computed in passes of their own. Idle slots can fill such gaps: a token is added to
what they hold, and taken back after the step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

GROUP = 4
"""Rows that are multiplied with the weights at once."""

MAX_TAIL = 8
"""Tokens behind a prompt that cost less than the pass in which a longer one is read to its end."""


def pass_cost(num_rows: int) -> int:
    """Return what a pass over the weights costs, in units of half a pass of one row.

    Fitted to what one to sixteen rows took on two cores, a Q4_0 model of 135 million parameters.
    """
    num_groups, num_left = divmod(num_rows, GROUP)
    return 1 + num_left + (num_groups + 2 if num_groups else 0)


def can_fill(slots: list[int]) -> bool:
    """Tell whether `slots`, in order, may be computed at less cost with others: a quick look."""
    num = len(slots)
    return num > 1 and (num % GROUP > 0 or slots[-1] - slots[0] >= num)


def fillers(slots: list[int], idle: Collection[int], num_each: int = 1) -> list[int]:
    """Return the idle slots with which `slots`, in order, are computed at the least cost.

    All take `num_each` tokens. Often none: then they are computed sooner without.
    """
    span = slots[-1] - slots[0] + 1
    best: list[int] = []
    least = sum(pass_cost(length * num_each) for length in _runs(slots))
    for size in range(span, span + GROUP):
        cost = pass_cost(size * num_each)
        if cost < least and (missing := _missing(slots, idle, size)) is not None:
            best, least = missing, cost
    return best


def _runs(slots: list[int]) -> Iterable[int]:
    """Yield how many neighbours there are in each run of slots."""
    begin = 0
    for index in range(1, len(slots) + 1):
        if index == len(slots) or slots[index] != slots[index - 1] + 1:
            yield index - begin
            begin = index


def _missing(slots: list[int], idle: Collection[int], size: int) -> list[int] | None:
    """Return the idle slots that make one run of `size` of `slots`; None if others are between."""
    used = set(slots)
    for begin in range(slots[-1] - size + 1, slots[0] + 1):
        missing = [slot for slot in range(begin, begin + size) if slot not in used]
        if all(slot in idle for slot in missing):
            return missing
    return None


def tails(lengths: list[int]) -> list[int]:
    """Return how many tokens to add behind the pieces of prompts that a step reads."""
    full = [_in_groups(length) for length in lengths]
    longest = max(full, default=0)
    return [
        longest - length if longest - length <= MAX_TAIL else rounded - length
        for length, rounded in zip(lengths, full, strict=True)
    ]


def _in_groups(num_rows: int) -> int:
    """Return the next number of rows that costs less; the same if none does."""
    rounded = -(-num_rows // GROUP) * GROUP
    return rounded if pass_cost(rounded) < pass_cost(num_rows) else num_rows
