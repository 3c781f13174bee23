"""Reuse of KV states by the requests of a scheduler."""

from __future__ import annotations

import pytest

from tests.support.fake_backend import says
from tests.support.scheduler_harness import LONG_ANSWER, Harness


def test_next_turn_computes_only_what_is_new() -> None:
    """The prompt and answer of the last turn are found in the slot, and counted as cached."""
    harness = Harness(next_token=says("yes"))
    harness.submit("question one:")
    harness.run()
    harness.backend.steps.clear()
    two = harness.submit("question one:yes two:")
    harness.run()
    assert harness.started(two).num_cached_tokens == len("question one:yes")
    assert harness.started(two).num_prompt_tokens == len("question one:yes two:")
    assert harness.backend.steps[0] == {0: len(" two:")}
    assert harness.text(two) == "yes"
    beat = harness.beat()
    assert beat.num_cached_tokens == len("question one:yes")
    assert beat.num_prompt_tokens == len("question one:") + len("question one:yes two:")
    assert beat.num_completion_tokens == 6


def test_owners_never_share_kv_states() -> None:
    """The same prompt of another owner is computed from its first token."""
    harness = Harness(next_token=says("yes"))
    harness.submit("question:", owner="ann")
    harness.run()
    two = harness.submit("question:", owner="bob")
    three = harness.submit("question:", owner="ann")
    harness.run()
    assert harness.started(two).num_cached_tokens == 0
    assert harness.started(three).num_cached_tokens == len("question")


def test_cancelled_prompt_is_continued_later() -> None:
    """The tokens that were computed before a prompt was cancelled are not computed again."""
    harness = Harness(max_batch_tokens=16)
    one = harness.submit("x" * 39 + ":")
    harness.step(2)
    harness.scheduler.cancel(one)
    two = harness.submit("x" * 39 + ":")
    harness.run()
    assert harness.started(two).num_cached_tokens == 32
    assert harness.text(two) == LONG_ANSWER


@pytest.mark.parametrize("num_steps", [0, 1, 200])
def test_forgotten_session_is_computed_again(num_steps: int) -> None:
    """A session can be forgotten while its request waits, while it runs and after it has ended."""
    harness = Harness(max_sequences=1)
    if not num_steps:
        harness.submit("before:", session="2", max_tokens=2)
        harness.step()
    harness.submit("question:", session="1")
    for _ in range(num_steps):
        harness.step()
    harness.scheduler.forget("ann", "1")
    assert "ann" not in harness.backend.owners
    harness.run()
    two = harness.submit("question:", session="1")
    harness.run()
    assert harness.started(two).num_cached_tokens == 0
    three = harness.submit("question:", session="1")
    harness.run()
    assert harness.started(three).num_cached_tokens == len("question")
