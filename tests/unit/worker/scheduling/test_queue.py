"""The order in which waiting prompts are read."""

from __future__ import annotations

from llmd.engine.protocol import Started
from llmd.worker.scheduling.prefill_budget import FIRST_READ
from llmd.worker.scheduling.queue import MAX_PASSED_OVER
from tests.support.scheduler_harness import Harness


def _order(harness: Harness) -> list[int]:
    return [event.id for event in harness.events if isinstance(event, Started)]


def test_the_shortest_prompt_is_read_first() -> None:
    """The shortest prompt is read first, and the others wait even if slots are free."""
    harness = Harness(max_batch_tokens=199)
    lengths = [150, 80, 120]
    for number, length in enumerate(lengths):
        harness.submit("x" * (length - 1) + ":", session=str(number))
    harness.step()
    assert _order(harness) == [2]
    assert (harness.beat().num_running, harness.beat().num_waiting) == (1, 2)
    harness.step(4)
    assert _order(harness) == [2, 3, 1]


def test_prompts_that_fit_into_a_step_together_are_read_together() -> None:
    """Prompts that fit into a step together are read together, and a longer one waits."""
    harness = Harness(max_batch_tokens=200)
    for number, length in enumerate([150, 80, 120]):
        harness.submit("x" * (length - 1) + ":", session=str(number))
    harness.step()
    assert _order(harness) == [2, 3]
    harness = Harness(max_batch_tokens=2 * FIRST_READ)
    for number in range(3):
        harness.submit("x" * (FIRST_READ // 2 - 1) + ":", session=str(number))
    harness.step()
    assert _order(harness) == [1, 2]


def test_short_prompt_is_read_before_the_rest_of_a_long_one() -> None:
    """A short prompt does not wait until a long one is complete."""
    harness = Harness(max_batch_tokens=100)
    harness.submit("x" * 240)
    harness.step()
    harness.submit("y" * 70 + ":", session="2")
    harness.step()
    assert harness.backend.steps == [{0: 100}, {1: 71}]
    assert harness.text(2) == "a"


def test_tokens_in_the_kv_memory_do_not_count() -> None:
    """The next turn of a long conversation counts as short: only its new tokens are read."""
    harness = Harness(max_batch_tokens=250)
    harness.submit("x" * 160 + ":", session="long", max_tokens=1)
    harness.run()
    harness.submit("y" * 100 + ":", session="new")
    harness.submit("x" * 160 + ":a!", session="long")
    harness.submit("z" * 100 + ":", session="newer")
    harness.step()
    assert _order(harness)[:2] == [1, 3]


def test_long_prompt_is_not_passed_over_for_ever() -> None:
    """A long prompt is read after `MAX_PASSED_OVER` shorter ones."""
    harness = Harness(max_sequences=1, max_batch_tokens=200)
    long = harness.submit("x" * 150 + ":", max_tokens=1)
    for number in range(2 * MAX_PASSED_OVER):
        harness.submit("y" * 64 + ":", session=str(number), max_tokens=1)
    harness.run()
    # The long prompt arrived first, so each prompt that was read before it passed it over.
    assert _order(harness).index(long) == MAX_PASSED_OVER
    assert harness.reason(long) == "length"
