from __future__ import annotations

import pytest

from llmd.engine.generation import Generation
from llmd.engine.protocol import Delta, Refused
from llmd.errors import EngineDied, InvalidField, PromptTooLong


def _generation(cancelled: list[int] | None = None) -> Generation:
    return Generation(7, "a.gguf", (cancelled if cancelled is not None else []).append)


def test_events_are_read_in_the_order_they_came() -> None:
    """`next` returns the oldest event, or None if none comes in time."""
    generation = _generation()
    generation.put(Delta(7, "a"))
    generation.put(Delta(7, "b"))
    assert generation.next(0) == Delta(7, "a")
    assert generation.next(0) == Delta(7, "b")
    assert generation.next(0) is None


def test_refused_prompt_raises_its_error() -> None:
    """A refusal with numbers of tokens is `PromptTooLong`; another one is `InvalidField`."""
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
    """The events before the death of the worker are read before the error."""
    generation = _generation()
    generation.put(Delta(7, "a"))
    generation.put(EngineDied("gone"))
    assert generation.next(0) == Delta(7, "a")
    with pytest.raises(EngineDied, match="gone"):
        generation.next(0)


def test_cancel_names_its_own_request() -> None:
    """`cancel` sends the ID of its request."""
    cancelled: list[int] = []
    _generation(cancelled).cancel()
    assert cancelled == [7]
