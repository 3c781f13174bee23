"""The rows of steps: their order, and how prompts and answers take turns."""

from __future__ import annotations

from llmd.worker.scheduling.prefill_budget import FIRST_READ, MAX_PAUSE_S, MIN_READ
from tests.support.fake_backend import parrot
from tests.support.scheduler_harness import Harness


def test_rows_are_ordered_by_slot_whatever_the_order_of_the_requests() -> None:
    """Rows are ordered by slot, since llama.cpp computes only neighbouring slots in one pass."""
    harness = Harness()
    for number in range(4):
        harness.submit(f"{number}:", owner="ann", session=str(number), max_tokens=2 + number % 2)
    harness.run()
    # The slots were released out of order, and are acquired again in the order of release.
    for number in range(4):
        harness.submit(f"{number} again:", owner="bob", session=str(number), max_tokens=4)
    harness.run()
    for step in harness.backend.steps:
        assert list(step) == sorted(step)


def test_prompts_are_ordered_by_slot_too() -> None:
    """The chunks of a step are ordered by slot, although the shortest prompt comes first."""
    harness = Harness(max_sequences=2)
    harness.submit("aaaa:", session="1")
    harness.submit("b:", session="2")
    harness.step()
    assert list(harness.backend.steps[-1].items()) == [(0, 2), (1, 5)]
    harness = Harness(max_sequences=2)
    harness.submit("a:", session="1", max_tokens=1)
    harness.submit("b:", session="2", max_tokens=50)
    harness.step(2)
    harness.submit("c:", session="1")
    harness.step(2)
    assert list(harness.backend.steps[-1].items()) == [(0, 1), (1, 1)]


def test_prompts_and_answers_take_turns() -> None:
    """A step reads prompts or continues answers, since both together would be two passes."""
    harness = Harness(max_batch_tokens=16)
    harness.submit("one:", session="1")
    harness.step()
    harness.submit("x" * 39 + ":", session="2")
    harness.step(6)
    assert harness.backend.steps[1:] == [{0: 1}, {1: 16}, {0: 1}, {1: 16}, {0: 1}, {1: 8}]


def test_answers_are_drafted_between_the_chunks_of_a_prompt() -> None:
    """While a prompt is read in steps of its own, the steps of answers still hold drafts."""
    harness = Harness(next_token=parrot, max_draft_tokens=3, max_sequences=2)
    harness.submit("hi:", session="1", max_tokens=40)
    harness.step(10)
    assert harness.backend.steps[-1] == {0: 4}
    harness.submit("x" * 40 + ":", session="2", max_tokens=40)
    harness.step(2)
    assert harness.backend.steps[-2:] == [{1: 32}, {0: 4}]


def test_only_the_first_prompt_of_a_step_is_read_in_part() -> None:
    """A part of a second prompt would be a pass of its own, in this step and in the next."""
    harness = Harness(max_batch_tokens=170)
    for number in range(3):
        harness.submit("x" * 80 + ":", session=str(number))
    harness.step(3)
    assert harness.backend.steps == [{0: 81, 1: 81}, {0: 1, 1: 1}, {2: 81}]
    harness = Harness(max_batch_tokens=150)
    harness.clock.pace_s = 0
    for number in range(3):
        harness.submit("x" * 80 + ":", session=str(number))
    harness.step(5)
    assert harness.backend.steps == [{0: 81}, {0: 1}, {1: 81}, {0: 1, 1: 1}, {2: 81}]


def test_long_prompt_is_read_in_smaller_chunks_beside_answers() -> None:
    """A step reads `FIRST_READ` tokens at first while answers wait, and a full batch otherwise."""
    harness = Harness(max_batch_tokens=2 * FIRST_READ, num_context_tokens=2000)
    harness.clock.pace_s = 0
    harness.submit("x" * (3 * FIRST_READ) + ":", session="1", max_tokens=9)
    harness.step(2)
    assert harness.backend.steps == [{0: 2 * FIRST_READ}, {0: FIRST_READ + 1}]
    harness.submit("y" * (3 * FIRST_READ) + ":", session="2")
    harness.step(2)
    assert harness.backend.steps[-2:] == [{0: 1}, {1: FIRST_READ}]


def test_model_that_reads_slowly_reads_less_beside_answers() -> None:
    """If reading is slow, a step reads only `MIN_READ` tokens while answers wait."""
    harness = Harness(max_batch_tokens=FIRST_READ, num_context_tokens=4000)
    harness.clock.pace_s = 100 * MAX_PAUSE_S
    harness.submit("x" * (7 * FIRST_READ) + ":", session="1", max_tokens=9)
    harness.step(8)
    harness.submit("y" * (3 * FIRST_READ) + ":", session="2")
    harness.step(2)
    assert harness.backend.steps[-2:] == [{0: 1}, {1: MIN_READ}]
