"""A request from its submission to `Done`: batching, ends of answers, and cancellation."""

from __future__ import annotations

import pytest

from llmd.engine.protocol import Delta, Done, Started
from llmd.errors import PromptTooLong
from tests.support.fake_backend import says
from tests.support.scheduler_harness import LONG_ANSWER, Harness


def test_answer_ends_with_the_models_own_end() -> None:
    """An answer that the model ends is sent whole and in order, and then `Done` with stop."""
    harness = Harness(next_token=says("hello"))
    one = harness.submit("hi:")
    harness.run()
    assert harness.text(one) == "hello"
    done = harness.done(one)
    assert done is not None
    assert (done.finish_reason, done.num_completion_tokens) == ("stop", 5)
    assert harness.backend.num_open_samplers == 0


def test_new_request_joins_at_the_next_step() -> None:
    """A request that arrives while another decodes is in the very next batch."""
    harness = Harness()
    one = harness.submit("one:")
    harness.step(3)
    two = harness.submit("two:")
    harness.step()
    assert harness.backend.steps[-1] == {1: 4}
    assert harness.text(one) == "abc"
    assert harness.text(two) == "a"
    harness.step()
    assert harness.backend.steps[-1] == {0: 1, 1: 1}


def test_long_prompt_is_read_in_chunks_between_the_steps_of_answers() -> None:
    """After each chunk of a prompt, every decoding sequence gets its next token."""
    harness = Harness(max_batch_tokens=16)
    one = harness.submit("one:")
    harness.step(2)
    two = harness.submit("x" * 39 + ":")
    harness.step(4)
    assert harness.backend.steps[2:] == [{1: 16}, {0: 1}, {1: 16}, {0: 1}]
    assert harness.text(one) == "abcd"
    assert harness.text(two) == ""
    harness.step()
    assert harness.backend.steps[-1] == {1: 8}
    assert harness.text(two) == "a"


def test_prompts_of_one_length_are_read_in_order_of_arrival() -> None:
    """The next of two equally long prompts begins when the first is complete."""
    harness = Harness(max_batch_tokens=16)
    harness.submit("x" * 19 + ":")
    harness.submit("y" * 19 + ":")
    harness.step(4)
    assert harness.backend.steps == [{0: 16}, {0: 4}, {0: 1}, {1: 16}]


def test_requests_beyond_the_slots_wait_for_their_turn() -> None:
    """Requests without a slot wait, and the first to arrive gets the next free slot."""
    harness = Harness(max_sequences=1, next_token=says("yes"))
    ids = [harness.submit(f"{number}:") for number in range(3)]
    harness.step()
    assert (harness.beat().num_running, harness.beat().num_waiting) == (1, 2)
    harness.run()
    ends = [event.id for event in harness.events if isinstance(event, Done)]
    assert ends == ids
    assert (harness.beat().num_running, harness.beat().num_waiting) == (0, 0)


def test_stop_string_ends_an_answer_across_tokens() -> None:
    """No part of a stop string is sent, even if it consists of several tokens."""
    harness = Harness()
    one = harness.submit("one:", stop=["fgh"])
    harness.run()
    assert harness.text(one) == "abcde"
    assert harness.reason(one) == "stop"
    assert not any(isinstance(e, Delta) and set(e.text) & set("fgh") for e in harness.events)


def test_character_of_several_tokens_is_sent_whole() -> None:
    """No piece of text ever holds an incomplete character."""
    harness = Harness(next_token=says("é\U0001f600x"))
    one = harness.submit("one:")
    harness.run()
    deltas = [event.text for event in harness.events if isinstance(event, Delta)]
    assert deltas == ["é", "\U0001f600", "x"]
    assert harness.text(one) == "é\U0001f600x"


def test_answer_ends_at_max_tokens_with_the_text_that_was_held_back() -> None:
    """The reason is length, and the beginning of an incomplete stop string is sent."""
    harness = Harness()
    one = harness.submit("one:", max_tokens=3, stop=["cdz"])
    harness.run()
    done = harness.done(one)
    assert done is not None
    assert (done.finish_reason, done.num_completion_tokens) == ("length", 3)
    assert harness.text(one) == "abc"


@pytest.mark.parametrize(("num_context", "limit"), [(20, None), (256, 20), (20, 256)])
def test_answer_ends_when_the_context_is_full(num_context: int, limit: int | None) -> None:
    """Prompt and answer together fill the context to its last token, and no further."""
    harness = Harness(num_context_tokens=num_context)
    one = harness.submit("0123456:", max_context_tokens=limit)
    harness.run()
    assert harness.reason(one) == "length"
    assert harness.text(one) == LONG_ANSWER[:12]


def test_prompt_of_almost_the_whole_context_gives_one_token() -> None:
    """A prompt that leaves room for one token is answered; a prompt one token longer is refused."""
    harness = Harness(num_context_tokens=20)
    one = harness.submit("x" * 18 + ":")
    harness.run()
    assert (harness.text(one), harness.reason(one)) == ("a", "length")
    with pytest.raises(PromptTooLong):
        harness.submit("x" * 19 + ":")
    assert not harness.scheduler.has_work
    assert harness.backend.num_open_samplers == 0


def test_request_cancelled_while_it_waits_never_runs() -> None:
    """A cancelled request without a slot leaves the queue at once, and the next moves up."""
    harness = Harness(max_sequences=1)
    harness.submit("one:")
    harness.step()
    two, three = harness.submit("two:"), harness.submit("three:")
    harness.scheduler.cancel(two)
    assert harness.reason(two) == "cancelled"
    assert (harness.beat().num_running, harness.beat().num_waiting) == (1, 1)
    harness.run()
    assert harness.text(two) == ""
    assert not any(isinstance(event, Started) and event.id == two for event in harness.events)
    assert harness.text(three) == LONG_ANSWER


@pytest.mark.parametrize(("num_steps", "text"), [(1, ""), (5, "abc")])
def test_cancelled_request_frees_its_slot_at_once(num_steps: int, text: str) -> None:
    """A cancel during prefill or decode frees the slot for the next step, and keeps sent text."""
    harness = Harness(max_sequences=1, max_batch_tokens=16)
    one = harness.submit("x" * 39 + ":")
    harness.step(num_steps)
    two = harness.submit("two:")
    harness.scheduler.cancel(one)
    assert (harness.reason(one), harness.text(one)) == ("cancelled", text)
    assert (harness.beat().num_running, harness.beat().num_waiting) == (0, 1)
    harness.step()
    assert harness.text(two) == "a"
    assert harness.backend.num_open_samplers == 1


def test_cancel_of_an_ended_or_unknown_request_does_nothing() -> None:
    """Neither a late cancel nor a repeated one emits another `Done`."""
    harness = Harness(next_token=says("yes"))
    one = harness.submit("one:")
    harness.run()
    num_events = len(harness.events)
    harness.scheduler.cancel(one)
    harness.scheduler.cancel(99)
    assert len(harness.events) == num_events
    two = harness.submit("two:")
    harness.scheduler.cancel(two)
    harness.scheduler.cancel(two)
    assert harness.reason(two) == "cancelled"


def test_beginning_of_a_stop_string_is_not_sent_when_cancelled() -> None:
    """A cancelled answer never ends with the beginning of a stop string."""
    harness = Harness()
    one = harness.submit("one:", stop=["cdz"])
    harness.step(3)
    harness.scheduler.cancel(one)
    assert harness.text(one) == "ab"


def test_times_of_a_request_are_reported_separately() -> None:
    """Waiting, prompt and answer are timed separately, in milliseconds of the given clock."""
    harness = Harness(max_sequences=1, next_token=says("yes"))
    harness.submit("one:")
    two = harness.submit("two:")
    harness.run()
    done = harness.done(two)
    assert done is not None
    assert done.queue_ms > 5000
    assert done.prefill_ms == 3000.0
    assert done.decode_ms > 5000


def test_beat_of_a_cancel_has_no_duration() -> None:
    """The beat of a step holds its duration; the beat of a cancel has a duration of zero."""
    harness = Harness()
    one = harness.submit("one:")
    harness.step()
    assert harness.beat().step_s > 0
    harness.scheduler.cancel(one)
    assert harness.beat().step_s == 0
    num_decodes = len(harness.backend.steps)
    harness.step()
    assert len(harness.backend.steps) == num_decodes
