from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmd.worker.kv.reuse_rule import Reuse, ReuseRule

FULL = ReuseRule(can_truncate=True, window=0)
WINDOWED = ReuseRule(can_truncate=True, window=10)
RECURRENT = ReuseRule(can_truncate=False, window=0)


def test_memory_without_windows_serves_every_prefix() -> None:
    """Full attention can be cut anywhere, and needs no checkpoints."""
    assert FULL.apply(7, 100, 0, []) == Reuse(7)
    assert not FULL.needs_checkpoints


def test_windowed_memory_serves_a_prefix_whose_cells_are_all_there() -> None:
    """A prefix is served if the window before its end lies behind the first cell."""
    assert WINDOWED.apply(60, 100, 0, []) == Reuse(60)
    assert WINDOWED.apply(60, 100, 50, []) == Reuse(60)
    assert WINDOWED.apply(60, 100, 51, []) == Reuse(0)
    assert WINDOWED.apply(5, 100, 0, []) == Reuse(5)
    assert WINDOWED.apply(5, 100, 1, []) == Reuse(0)


def test_recurrent_memory_serves_all_or_a_checkpoint() -> None:
    """A recurrent layer knows only its last token's state, and those kept of earlier ones."""
    assert RECURRENT.apply(100, 100, 0, []) == Reuse(100)
    assert RECURRENT.apply(99, 100, 0, []) == Reuse(0)
    assert RECURRENT.apply(99, 100, 0, [20, 80]) == Reuse(80, from_checkpoint=True)
    assert RECURRENT.apply(79, 100, 0, [20, 80]) == Reuse(20, from_checkpoint=True)
    assert RECURRENT.apply(19, 100, 0, [20, 80]) == Reuse(0)


@given(
    st.booleans(),
    st.integers(0, 50),
    st.integers(0, 200),
    st.integers(0, 200),
    st.integers(0, 200),
    st.lists(st.integers(1, 200)),
)
def test_reuse_never_exceeds_what_is_shared(
    can_truncate: bool,
    window: int,
    num_shared: int,
    num_more: int,
    first_cell: int,
    checkpoints: list[int],
) -> None:
    """Whatever the memory, only shared tokens are reused, and a checkpoint is one that exists."""
    rule = ReuseRule(can_truncate, window)
    reuse = rule.apply(num_shared, num_shared + num_more, first_cell, checkpoints)
    assert 0 <= reuse.num_tokens <= num_shared
    if reuse.from_checkpoint:
        assert reuse.num_tokens in checkpoints
