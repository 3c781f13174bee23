from __future__ import annotations

import pytest

from llmd.engine.generation import Generation, GenerationEvent
from llmd.engine.protocol import Delta, Done, Refused
from llmd.errors import EngineDied, InvalidField, PromptTooLong
from tests.fake_engine import done
from tests.service import Background, until


def _generation(cancelled: list[int] | None = None) -> Generation:
    return Generation(7, "a.gguf", (cancelled if cancelled is not None else []).append)


def test_events_are_read_in_the_order_they_came() -> None:
    """Reading takes the oldest event, and None when there is none in time."""
    generation = _generation()
    generation.put(Delta(7, "a"))
    generation.put(Delta(7, "b"))
    assert generation.next(0) == Delta(7, "a")
    assert generation.next(0) == Delta(7, "b")
    assert generation.next(0) is None


def test_refused_prompt_raises_what_was_wrong_with_it() -> None:
    """Numbers mean that the prompt was too long; else the message names the prompt."""
    generation = _generation()
    generation.put(Refused(id=7, message="no", num_prompt_tokens=90, num_context_tokens=80))
    generation.put(Refused(id=7, message="the template refuses this"))
    with pytest.raises(PromptTooLong) as long:
        generation.next(0)
    assert (long.value.num_prompt_tokens, long.value.num_context_tokens) == (90, 80)
    with pytest.raises(InvalidField, match="the template refuses this") as refused:
        generation.next(0)
    assert refused.value.param == "prompt"


def test_death_of_the_worker_is_raised_after_what_came_before() -> None:
    """The text that arrived is read first."""
    generation = _generation()
    generation.put(Delta(7, "a"))
    generation.put(EngineDied("gone"))
    assert generation.next(0) == Delta(7, "a")
    with pytest.raises(EngineDied, match="gone"):
        generation.next(0)


def test_cancel_names_its_own_request() -> None:
    """The worker is asked to end this request, by its id."""
    cancelled: list[int] = []
    _generation(cancelled).cancel()
    assert cancelled == [7]


class Ear:
    """A listener that takes text, unless it is told not to."""

    def __init__(self, generation: Generation) -> None:
        self.heard: list[GenerationEvent] = []
        self.is_ready = True
        self.error: Exception | None = None
        generation.listen(self.hear)

    def hear(self, event: GenerationEvent) -> bool:
        if self.error is not None:
            raise self.error
        if isinstance(event, Done) or not self.is_ready:
            return False
        self.heard.append(event)
        return True


def _reader(generation: Generation) -> Background:
    """Return a thread that waits for the next event."""
    reader = Background(lambda: generation.next(20))
    until(lambda: generation._is_awaited)
    return reader


def test_listener_saves_the_reader_from_what_it_can_handle() -> None:
    """The reader waits on, and gets what the listener leaves to it."""
    generation = _generation()
    ear = Ear(generation)
    reader = _reader(generation)
    generation.put(Delta(7, "a"))
    generation.put(Delta(7, "b"))
    assert reader.is_running
    generation.put(done())
    assert isinstance(reader.wait(), Done)
    assert ear.heard == [Delta(7, "a"), Delta(7, "b")]


def test_listener_hears_nothing_while_the_reader_is_busy() -> None:
    """What comes then, and after it, is read in its order."""
    generation = _generation()
    ear = Ear(generation)
    for text in "ab":
        generation.put(Delta(7, text))
    assert [generation.next(0), generation.next(0)] == [Delta(7, "a"), Delta(7, "b")]
    assert ear.heard == []


def test_what_follows_an_event_left_to_the_reader_is_left_to_it_too() -> None:
    """The listener must not overtake a reader that is being woken."""
    generation = _generation()
    ear = Ear(generation)
    reader = _reader(generation)
    ear.is_ready = False
    generation.put(Delta(7, "a"))
    ear.is_ready = True
    generation.put(Delta(7, "b"))
    assert reader.wait() == Delta(7, "a")
    assert generation.next(20) == Delta(7, "b")
    assert ear.heard == []


def test_error_of_a_listener_is_raised_where_the_events_are_read() -> None:
    """The thread that brings events serves everybody; the listener is asked no more."""
    generation = _generation()
    ear = Ear(generation)
    ear.error = ValueError("broken")
    reader = _reader(generation)
    generation.put(Delta(7, "a"))
    with pytest.raises(ValueError, match="broken"):
        reader.wait()
    reader = _reader(generation)
    generation.put(Delta(7, "b"))
    assert reader.wait() == Delta(7, "b")


def test_death_of_the_worker_is_no_listeners_business() -> None:
    """The reader must hear of it."""
    generation = _generation()
    ear = Ear(generation)
    reader = _reader(generation)
    generation.put(EngineDied("gone"))
    with pytest.raises(EngineDied, match="gone"):
        reader.wait()
    assert ear.heard == []


def test_nobody_listens_after_the_listener_was_taken_off() -> None:
    """As without one."""
    generation = _generation()
    ear = Ear(generation)
    generation.listen(None)
    reader = _reader(generation)
    generation.put(Delta(7, "a"))
    assert reader.wait() == Delta(7, "a")
    assert ear.heard == []
