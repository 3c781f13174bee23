from __future__ import annotations

import pytest

from tests.support.fake_backend import says
from tests.support.scheduler_harness import LONG_ANSWER, House


def test_next_turn_computes_only_what_is_new() -> None:
    """The prompt and the answer of the last turn are found in the slot, and counted."""
    house = House(next_token=says("yes"))
    house.submit("question one:")
    house.run()
    house.backend.steps.clear()
    two = house.submit("question one:yes two:")
    house.run()
    assert house.started(two).num_cached_tokens == len("question one:yes")
    assert house.started(two).num_prompt_tokens == len("question one:yes two:")
    assert house.backend.steps[0] == {0: len(" two:")}
    assert house.text(two) == "yes"
    beat = house.beat()
    assert beat.num_cached_tokens == len("question one:yes")
    assert beat.num_prompt_tokens == len("question one:") + len("question one:yes two:")
    assert beat.num_completion_tokens == 6


def test_two_owners_never_share_what_was_computed() -> None:
    """The same prompt of another owner is computed from its first token."""
    house = House(next_token=says("yes"))
    house.submit("question:", owner="ann")
    house.run()
    two = house.submit("question:", owner="bob")
    three = house.submit("question:", owner="ann")
    house.run()
    assert house.started(two).num_cached_tokens == 0
    assert house.started(three).num_cached_tokens == len("question")


def test_cancelled_prompt_is_gone_on_with_later() -> None:
    """What was computed of a prompt before its cancellation is not computed again."""
    house = House(max_batch_tokens=16)
    one = house.submit("x" * 39 + ":")
    house.step(2)
    house.scheduler.cancel(one)
    two = house.submit("x" * 39 + ":")
    house.run()
    assert house.started(two).num_cached_tokens == 32
    assert house.text(two) == LONG_ANSWER


@pytest.mark.parametrize("num_steps", [0, 1, 200])
def test_forgotten_session_is_computed_anew(num_steps: int) -> None:
    """Forgetting holds for requests that wait, that run and that have ended."""
    house = House(max_sequences=1)
    if not num_steps:
        house.submit("before:", session="2", max_tokens=2)
        house.step()
    house.submit("question:", session="1")
    for _ in range(num_steps):
        house.step()
    house.scheduler.forget("ann", "1")
    assert "ann" not in house.backend.owners
    house.run()
    two = house.submit("question:", session="1")
    house.run()
    assert house.started(two).num_cached_tokens == 0
    three = house.submit("question:", session="1")
    house.run()
    assert house.started(three).num_cached_tokens == len("question")
