from __future__ import annotations

from llmd.engine.protocol import Started
from llmd.worker.scheduling.prefill_budget import FIRST_READ
from llmd.worker.scheduling.queue import MAX_WAITS
from tests.support.scheduler_harness import House


def _order(house: House) -> list[int]:
    return [event.id for event in house.events if isinstance(event, Started)]


def test_the_shortest_prompt_is_read_first() -> None:
    """However many slots are free, the others wait meanwhile."""
    house = House(max_batch_tokens=199)
    lengths = [150, 80, 120]
    for number, length in enumerate(lengths):
        house.submit("x" * (length - 1) + ":", session=str(number))
    house.step()
    assert _order(house) == [2]
    assert (house.beat().num_running, house.beat().num_waiting) == (1, 2)
    house.step(4)
    assert _order(house) == [2, 3, 1]


def test_prompts_that_fit_into_a_step_together_are_read_together() -> None:
    """The longest of them does not, and waits."""
    house = House(max_batch_tokens=200)
    for number, length in enumerate([150, 80, 120]):
        house.submit("x" * (length - 1) + ":", session=str(number))
    house.step()
    assert _order(house) == [2, 3]
    house = House(max_batch_tokens=2 * FIRST_READ)
    for number in range(3):
        house.submit("x" * (FIRST_READ // 2 - 1) + ":", session=str(number))
    house.step()
    assert _order(house) == [1, 2]


def test_short_prompt_is_read_before_the_rest_of_a_long_one() -> None:
    """It need not wait until a long one is through."""
    house = House(max_batch_tokens=100)
    house.submit("x" * 240)
    house.step()
    house.submit("y" * 70 + ":", session="2")
    house.step()
    assert house.backend.steps == [{0: 100}, {1: 71}]
    assert house.text(2) == "a"


def test_what_a_session_has_warm_does_not_count() -> None:
    """The next turn of a conversation is short, however long the conversation is."""
    house = House(max_batch_tokens=250)
    house.submit("x" * 160 + ":", session="long", max_tokens=1)
    house.run()
    house.submit("y" * 100 + ":", session="new")
    house.submit("x" * 160 + ":a!", session="long")
    house.submit("z" * 100 + ":", session="newer")
    house.step()
    assert _order(house)[:2] == [1, 3]


def test_long_prompt_is_not_passed_over_for_ever() -> None:
    """After so many shorter ones it is its turn."""
    house = House(max_sequences=1, max_batch_tokens=200)
    long = house.submit("x" * 150 + ":", max_tokens=1)
    for number in range(2 * MAX_WAITS):
        house.submit("y" * 64 + ":", session=str(number), max_tokens=1)
    house.run()
    # It was there first: every one that went before it passed it over.
    assert _order(house).index(long) == MAX_WAITS
    assert house.reason(long) == "length"
