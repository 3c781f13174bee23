"""The length of common prefixes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmd.worker.kv.prefix import common_prefix

_tokens = st.lists(st.integers(0, 1), max_size=20)


@given(_tokens, _tokens, _tokens)
def test_common_prefix_is_what_a_loop_over_both_lists_finds(
    shared: list[int], left: list[int], right: list[int]
) -> None:
    """The binary search returns the same length as a comparison token by token."""
    left, right = shared + left, shared + right
    expected = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        expected += 1
    assert common_prefix(left, right) == expected
