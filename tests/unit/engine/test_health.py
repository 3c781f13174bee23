"""How long a step may take."""

from __future__ import annotations

import pytest

from llmd.engine.health import StallLimit


def test_no_step_tells_nothing() -> None:
    """Before the first step there is no limit to tell."""
    assert StallLimit(256).limit_s() is None


def test_the_longest_step_counts() -> None:
    """Short steps after a long one do not make the long one a hang."""
    limit = StallLimit(4)
    limit.add(8.0, 4)
    for _ in range(1000):
        limit.add(0.1, 4)
    assert limit.limit_s() == pytest.approx(80.0)


def test_a_step_of_one_token_tells_what_a_full_one_may_cost() -> None:
    """After a long time of single tokens, a whole prompt is no hang."""
    limit = StallLimit(256)
    limit.add(0.3, 1)
    assert limit.limit_s() == pytest.approx(10 * 256 * 0.3)
    limit.add(3.2, 64)
    assert limit.limit_s() == pytest.approx(10 * 256 * 0.05)
