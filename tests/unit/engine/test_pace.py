"""How long a step may take."""

from __future__ import annotations

import pytest

from llmd.engine.pace import Pace


def test_no_step_tells_nothing() -> None:
    """Before the first step there is no limit to tell."""
    assert Pace(256).limit_s() is None


def test_the_longest_step_counts() -> None:
    """Short steps after a long one do not make the long one a hang."""
    pace = Pace(4)
    pace.add(8.0, 4)
    for _ in range(1000):
        pace.add(0.1, 4)
    assert pace.limit_s() == pytest.approx(80.0)


def test_a_step_of_one_token_tells_what_a_full_one_may_cost() -> None:
    """After a long time of single tokens, a whole prompt is no hang."""
    pace = Pace(256)
    pace.add(0.3, 1)
    assert pace.limit_s() == pytest.approx(10 * 256 * 0.3)
    pace.add(3.2, 64)
    assert pace.limit_s() == pytest.approx(10 * 256 * 0.05)
