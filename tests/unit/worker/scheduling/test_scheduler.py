from __future__ import annotations

import pytest

from llmd.engine.protocol import Delta, Done, Started
from llmd.errors import PromptTooLong
from tests.support.fake_backend import says
from tests.support.scheduler_harness import LONG_ANSWER, House


def test_answer_ends_with_the_models_own_end() -> None:
    """The text comes in order and whole, and then one Done with the reason stop."""
    house = House(next_token=says("hello"))
    one = house.submit("hi:")
    house.run()
    assert house.text(one) == "hello"
    done = house.done(one)
    assert done is not None
    assert (done.finish_reason, done.num_completion_tokens) == ("stop", 5)
    assert house.backend.num_open_samplers == 0


def test_new_request_joins_at_the_next_step() -> None:
    """A request that comes while another decodes is in the very next batch."""
    house = House()
    one = house.submit("one:")
    house.step(3)
    two = house.submit("two:")
    house.step()
    assert house.backend.steps[-1] == {1: 4}
    assert house.text(one) == "abc"
    assert house.text(two) == "a"
    house.step()
    assert house.backend.steps[-1] == {0: 1, 1: 1}


def test_long_prompt_is_computed_in_chunks_among_steps_of_those_who_decode() -> None:
    """After each chunk every decoding sequence gets its token."""
    house = House(max_batch_tokens=16)
    one = house.submit("one:")
    house.step(2)
    two = house.submit("x" * 39 + ":")
    house.step(4)
    assert house.backend.steps[2:] == [{1: 16}, {0: 1}, {1: 16}, {0: 1}]
    assert house.text(one) == "abcd"
    assert house.text(two) == ""
    house.step()
    assert house.backend.steps[-1] == {1: 8}
    assert house.text(two) == "a"


def test_prompts_are_computed_in_the_order_they_came() -> None:
    """The next that waits begins when the one before it is through."""
    house = House(max_batch_tokens=16)
    house.submit("x" * 19 + ":")
    house.submit("y" * 19 + ":")
    house.step(4)
    assert house.backend.steps == [{0: 16}, {0: 4}, {0: 1}, {1: 16}]


def test_requests_beyond_the_slots_wait_for_their_turn() -> None:
    """The first to come gets the first slot that is free."""
    house = House(max_sequences=1, next_token=says("yes"))
    ids = [house.submit(f"{number}:") for number in range(3)]
    house.step()
    assert (house.beat().num_running, house.beat().num_waiting) == (1, 2)
    house.run()
    ends = [event.id for event in house.events if isinstance(event, Done)]
    assert ends == ids
    assert (house.beat().num_running, house.beat().num_waiting) == (0, 0)


def test_stop_string_ends_an_answer_across_tokens() -> None:
    """Nothing of the stop string is shown, though it came in several tokens."""
    house = House()
    one = house.submit("one:", stop=["fgh"])
    house.run()
    assert house.text(one) == "abcde"
    assert house.reason(one) == "stop"
    assert not any(isinstance(e, Delta) and set(e.text) & set("fgh") for e in house.events)


def test_character_of_several_tokens_is_sent_whole() -> None:
    """No piece of text ever holds half a character."""
    house = House(next_token=says("é\U0001f600x"))
    one = house.submit("one:")
    house.run()
    deltas = [event.text for event in house.events if isinstance(event, Delta)]
    assert deltas == ["é", "\U0001f600", "x"]
    assert house.text(one) == "é\U0001f600x"


def test_answer_ends_at_max_tokens_with_the_text_it_held_back() -> None:
    """The reason is length, and the beginning of a stop string that never came is shown."""
    house = House()
    one = house.submit("one:", max_tokens=3, stop=["cdz"])
    house.run()
    done = house.done(one)
    assert done is not None
    assert (done.finish_reason, done.num_completion_tokens) == ("length", 3)
    assert house.text(one) == "abc"


@pytest.mark.parametrize(("num_context", "limit"), [(20, None), (256, 20), (20, 256)])
def test_answer_ends_when_the_context_is_full(num_context: int, limit: int | None) -> None:
    """Prompt and answer together fill the context to its last token, and no further."""
    house = House(num_context_tokens=num_context)
    one = house.submit("0123456:", max_context_tokens=limit)
    house.run()
    assert house.reason(one) == "length"
    assert house.text(one) == LONG_ANSWER[:12]


def test_prompt_of_almost_the_whole_context_gives_one_token() -> None:
    """A prompt that leaves room for one token is served, one token longer is refused."""
    house = House(num_context_tokens=20)
    one = house.submit("x" * 18 + ":")
    house.run()
    assert (house.text(one), house.reason(one)) == ("a", "length")
    with pytest.raises(PromptTooLong):
        house.submit("x" * 19 + ":")
    assert not house.scheduler.has_work
    assert house.backend.num_open_samplers == 0


def test_cancelled_while_it_waits_never_runs() -> None:
    """A request without a slot leaves the queue at once and the next moves up."""
    house = House(max_sequences=1)
    house.submit("one:")
    house.step()
    two, three = house.submit("two:"), house.submit("three:")
    house.scheduler.cancel(two)
    assert house.reason(two) == "cancelled"
    assert (house.beat().num_running, house.beat().num_waiting) == (1, 1)
    house.run()
    assert house.text(two) == ""
    assert not any(isinstance(event, Started) and event.id == two for event in house.events)
    assert house.text(three) == LONG_ANSWER


@pytest.mark.parametrize(("num_steps", "text"), [(1, ""), (5, "abc")])
def test_cancelled_in_prefill_or_decode_frees_its_slot_at_once(num_steps: int, text: str) -> None:
    """One that waits has the slot in the next step; what was sent stays sent."""
    house = House(max_sequences=1, max_batch_tokens=16)
    one = house.submit("x" * 39 + ":")
    house.step(num_steps)
    two = house.submit("two:")
    house.scheduler.cancel(one)
    assert (house.reason(one), house.text(one)) == ("cancelled", text)
    assert (house.beat().num_running, house.beat().num_waiting) == (0, 1)
    house.step()
    assert house.text(two) == "a"
    assert house.backend.num_open_samplers == 1


def test_cancel_of_what_has_ended_or_never_was_does_nothing() -> None:
    """A late cancel, and a second one, give no second Done."""
    house = House(next_token=says("yes"))
    one = house.submit("one:")
    house.run()
    num_events = len(house.events)
    house.scheduler.cancel(one)
    house.scheduler.cancel(99)
    assert len(house.events) == num_events
    two = house.submit("two:")
    house.scheduler.cancel(two)
    house.scheduler.cancel(two)
    assert house.reason(two) == "cancelled"


def test_beginning_of_a_stop_string_is_not_shown_when_cancelled() -> None:
    """A cancelled answer never ends in what could have become a stop string."""
    house = House()
    one = house.submit("one:", stop=["cdz"])
    house.step(3)
    house.scheduler.cancel(one)
    assert house.text(one) == "ab"


def test_times_of_a_request_are_told_apart() -> None:
    """Waiting, prompt and answer each have their own milliseconds, from the given clock."""
    house = House(max_sequences=1, next_token=says("yes"))
    house.submit("one:")
    two = house.submit("two:")
    house.run()
    done = house.done(two)
    assert done is not None
    assert done.queue_ms > 5000
    assert done.prefill_ms == 3000.0
    assert done.decode_ms > 5000


def test_beat_of_a_cancel_is_no_step() -> None:
    """A step tells how long it took; the counts after a cancel come with no length."""
    house = House()
    one = house.submit("one:")
    house.step()
    assert house.beat().step_s > 0
    house.scheduler.cancel(one)
    assert house.beat().step_s == 0
    num_decodes = len(house.backend.steps)
    house.step()
    assert len(house.backend.steps) == num_decodes
