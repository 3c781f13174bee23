"""The desk of a model that makes vectors and nothing else."""

from __future__ import annotations

import pytest

from llmd.engine.protocol import (
    Beat,
    Cancel,
    ChatPrompt,
    Command,
    Detokenize,
    Done,
    Embed,
    Embedded,
    Event,
    Forget,
    Part,
    Refused,
    Render,
    Sampling,
    Submit,
    TextPrompt,
    Tokenize,
)
from llmd.worker.desk import EmbeddingDesk
from tests.embedding import FakeBackend
from tests.fakes import Clock


class House:
    """A desk, and all that it told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.desk = EmbeddingDesk(FakeBackend(), self.events.append, Clock())


@pytest.fixture
def house() -> House:
    """Give a house."""
    return House()


def test_vectors_are_made_with_a_beat_for_each_step(house: House) -> None:
    """The beat tells how far it is, and how long the step took."""
    house.desk.obey(Embed(1, ["abc", "defghij"]))
    assert house.desk.has_work
    while house.desk.has_work:
        house.desk.step()
    *beats_before, embedded, beat = house.events
    assert isinstance(embedded, Embedded)
    assert (embedded.id, len(embedded.vectors), embedded.num_tokens) == (1, 2, 12)
    beats = [event for event in (*beats_before, beat) if isinstance(event, Beat)]
    assert [(one.num_running, one.num_prompt_tokens, one.num_step_tokens) for one in beats] == [
        (1, 8, 8),
        (0, 12, 4),
    ]
    assert all(one.step_s > 0 for one in beats)


def test_an_input_that_cannot_be_is_refused(house: House) -> None:
    """In the course of a step, after which there is nothing to do."""
    house.desk.obey(Embed(1, [""]))
    house.desk.step()
    refused = house.events[0]
    assert isinstance(refused, Refused)
    assert (refused.id, refused.param) == (1, "input")
    assert not house.desk.has_work


def test_vectors_may_be_cancelled(house: House) -> None:
    """Then there is nothing to do; a cancel of what has ended is nothing."""
    house.desk.obey(Embed(1, ["abc"]))
    house.desk.obey(Cancel(1))
    house.desk.obey(Cancel(1))
    [done] = house.events
    assert isinstance(done, Done)
    assert (done.id, done.finish_reason) == (1, "cancelled")
    assert not house.desk.has_work


@pytest.mark.parametrize(
    "command",
    [
        Submit(
            id=1,
            owner="ann",
            prompt=TextPrompt([Part(text="hi")]),
            sampling=Sampling(),
            max_tokens=1,
        ),
        Tokenize(id=1, text="hi"),
        Detokenize(1, [1]),
        Render(1, ChatPrompt([])),
    ],
)
def test_whatever_else_is_asked_is_refused(house: House, command: Command) -> None:
    """Nobody waits for an answer that never comes."""
    house.desk.obey(command)
    [refused] = house.events
    assert isinstance(refused, Refused)
    assert refused.id == 1
    assert not house.desk.has_work


def test_there_is_nothing_to_forget(house: House) -> None:
    """Vectors leave nothing behind."""
    house.desk.obey(Forget(owner="ann"))
    assert house.events == []
