"""The limit on the duration of a step."""

from __future__ import annotations

import pytest

from llmd.engine.health import StallLimit


def test_nothing_is_expected_to_be_slow_before_the_first_step() -> None:
    """Before the first step the limit is 0, so that the configured one applies."""
    assert StallLimit(256).limit_s() == 0


def test_a_step_without_tokens_says_nothing_about_their_cost() -> None:
    """A step that computed no token does not raise the limit for a step of many."""
    limit = StallLimit(256)
    limit.add(0.5, 0)
    assert limit.limit_s() == pytest.approx(5.0)
    limit.add(0.1, 10)
    assert limit.limit_s() == pytest.approx(10 * 256 * 0.01)


def test_the_longest_step_counts() -> None:
    """Short steps after a long one do not lower the limit."""
    limit = StallLimit(4)
    limit.add(8.0, 4)
    for _ in range(1000):
        limit.add(0.1, 4)
    assert limit.limit_s() == pytest.approx(80.0)


def test_the_limit_for_a_full_step_follows_from_a_step_of_one_token() -> None:
    """A full step after many steps of one token is within the limit."""
    limit = StallLimit(256)
    limit.add(0.3, 1)
    assert limit.limit_s() == pytest.approx(10 * 256 * 0.3)
    limit.add(3.2, 64)
    assert limit.limit_s() == pytest.approx(10 * 256 * 0.05)
