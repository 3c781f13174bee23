"""Common prefixes of token lists."""

from __future__ import annotations


def common_prefix(left: list[int], right: list[int]) -> int:
    """Return the length of the longest common prefix of two token lists."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        # A binary search reads some tokens twice, but compares slices in C: faster than a loop.
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
