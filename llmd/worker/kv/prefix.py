"""Shared beginnings of token lists."""

from __future__ import annotations


def common_prefix(left: list[int], right: list[int]) -> int:
    """Return how many tokens two lists share at their beginning."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        # Slices compare in C: faster than a loop over tokens, though some are read again.
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
