from __future__ import annotations

from llmd.worker.scheduling.prefill_budget import FIRST_READ, MAX_PAUSE_S, MIN_READ
from tests.support.fake_backend import parrot
from tests.support.scheduler_harness import Harness


def test_rows_go_by_slot_whatever_the_order_of_the_requests() -> None:
    """llama.cpp runs neighbouring slots in one pass, and begins another where they are not."""
    harness = Harness()
    for number in range(4):
        harness.submit(f"{number}:", owner="ann", session=str(number), max_tokens=2 + number % 2)
    harness.run()
    # The slots were given back in another order than their own, and are taken again in that.
    for number in range(4):
        harness.submit(f"{number} again:", owner="bob", session=str(number), max_tokens=4)
    harness.run()
    for step in harness.backend.steps:
        assert list(step) == sorted(step)


def test_prompts_are_put_by_slot_too() -> None:
    """Though the shortest is read first."""
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
    """In one step they would be two passes over the weights all the same."""
    harness = Harness(max_batch_tokens=16)
    harness.submit("one:", session="1")
    harness.step()
    harness.submit("x" * 39 + ":", session="2")
    harness.step(6)
    assert harness.backend.steps[1:] == [{0: 1}, {1: 16}, {0: 1}, {1: 16}, {0: 1}, {1: 8}]


def test_answers_guess_between_the_pieces_of_a_prompt() -> None:
    """These are read in steps of their own."""
    harness = Harness(next_token=parrot, max_draft_tokens=3, max_sequences=2)
    harness.submit("hi:", session="1", max_tokens=40)
    harness.step(10)
    assert harness.backend.steps[-1] == {0: 4}
    harness.submit("x" * 40 + ":", session="2", max_tokens=40)
    harness.step(2)
    assert harness.backend.steps[-2:] == [{1: 32}, {0: 4}]


def test_beside_the_first_prompt_others_are_read_only_whole() -> None:
    """A part of one would be a pass of its own, in this step and in the next."""
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


def test_long_prompt_keeps_running_answers_waiting_no_longer_than_some_tokens() -> None:
    """Alone it has the whole batch."""
    harness = Harness(max_batch_tokens=2 * FIRST_READ, num_context_tokens=2000)
    harness.clock.pace_s = 0
    harness.submit("x" * (3 * FIRST_READ) + ":", session="1", max_tokens=9)
    harness.step(2)
    assert harness.backend.steps == [{0: 2 * FIRST_READ}, {0: FIRST_READ + 1}]
    harness.submit("y" * (3 * FIRST_READ) + ":", session="2")
    harness.step(2)
    assert harness.backend.steps[-2:] == [{0: 1}, {1: FIRST_READ}]


def test_model_that_reads_slowly_reads_less_beside_answers() -> None:
    """The pause is bounded, not the tokens."""
    harness = Harness(max_batch_tokens=FIRST_READ, num_context_tokens=4000)
    harness.clock.pace_s = 100 * MAX_PAUSE_S
    harness.submit("x" * (7 * FIRST_READ) + ":", session="1", max_tokens=9)
    harness.step(8)
    harness.submit("y" * (3 * FIRST_READ) + ":", session="2")
    harness.step(2)
    assert harness.backend.steps[-2:] == [{0: 1}, {1: MIN_READ}]
