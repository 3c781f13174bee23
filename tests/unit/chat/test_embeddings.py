"""Vectors from the request to the engine and back."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from llmd import config
from llmd.chat.admission import Admission
from llmd.chat.embeddings import Embeddings
from llmd.engine import engine
from llmd.engine.model import Model
from llmd.engine.protocol import Embed, Embedded, Query, Refused, Start
from llmd.errors import (
    ClientGone,
    Draining,
    EngineDied,
    EngineFailed,
    InvalidField,
    LlmdError,
    PromptTooLong,
)
from tests.support.answers import never
from tests.support.fake_engine import Event, FakeEngine
from tests.support.service import Background, until


def embedded(query: Query) -> list[Event]:
    """Give a vector for each input."""
    assert isinstance(query, Embed)
    return [Embedded(id=0, vectors=[b"vec!"] * len(query.inputs), num_tokens=7)]


class House:
    """The use case over a fake engine with one place."""

    def __init__(self, embedder: FakeEngine | None = None) -> None:
        self.engine = FakeEngine("chat.gguf")
        self.engine.reply = embedded
        self.embedder = embedder
        self.admission = Admission(1, 0)
        self.embeddings = Embeddings(self.engine, embedder, self.admission)

    @property
    def is_free(self) -> bool:
        """Tell whether every place was given back."""
        return (self.admission.num_active, self.admission.num_queued) == (0, 0)


def test_vectors_come_with_the_number_of_tokens_and_the_model() -> None:
    """The inputs go to the engine as they are, and the place is given back."""
    house = House()
    result = house.embeddings.embed("ann", ["a text", [1, 2]], never)
    assert (result.vectors, result.num_tokens) == ([b"vec!"] * 2, 7)
    assert result.model == "chat.gguf"
    (query,) = house.engine.queries
    assert isinstance(query, Embed)
    assert query.inputs == ["a text", [1, 2]]
    assert house.is_free


def test_a_model_for_embeddings_is_asked_in_place_of_the_one_that_answers() -> None:
    """Its state counts: whether the other is ready does not matter."""
    embedder = FakeEngine("embed.gguf")
    embedder.reply = embedded
    house = House(embedder)
    house.engine.not_ready = EngineFailed("no model")
    assert house.embeddings.embed("ann", ["a"], never).model == "embed.gguf"
    assert house.embeddings.model == "embed.gguf"
    assert house.engine.queries == []
    embedder.not_ready = EngineFailed("it cannot be loaded")
    with pytest.raises(EngineFailed, match="it cannot be loaded"):
        house.embeddings.embed("ann", ["a"], never)
    assert house.is_free


def test_closing_ends_the_model_for_embeddings_alone() -> None:
    """The one that answers belongs to others."""
    embedder = FakeEngine("embed.gguf")
    house = House(embedder)
    house.embeddings.close()
    assert (embedder.model, house.engine.model) == (None, "chat.gguf")


def test_vectors_take_a_place_like_answers() -> None:
    """It is taken before the engine is asked, and held until the vectors are there."""
    house = House()
    house.engine.reply = lambda _query: []
    waiting = Background(lambda: house.embeddings.embed("ann", ["a"], never))
    until(lambda: house.engine.queries)
    assert house.admission.num_active == 1
    house.engine.generations[0].put(Embedded(id=0, vectors=[b"late"], num_tokens=1))
    assert waiting.wait().vectors == [b"late"]
    assert house.is_free


def test_vectors_of_a_client_that_went_away_are_cancelled() -> None:
    """Nobody waits for them."""
    house = House()
    house.engine.reply = lambda _query: []
    with pytest.raises(ClientGone):
        house.embeddings.embed("ann", ["a"], lambda: bool(house.engine.queries))
    assert house.engine.cancelled == [house.engine.generations[0].id]
    assert house.is_free


def test_vectors_do_not_outlast_the_time_to_drain() -> None:
    """The daemon goes down without them, and says so."""
    house = House()
    house.engine.reply = lambda _query: []
    waiting = Background(lambda: house.embeddings.embed("ann", ["a"], never))
    until(lambda: house.engine.queries)
    house.admission.drain()
    house.admission.expire()
    with pytest.raises(Draining):
        waiting.wait()
    assert house.engine.cancelled == [house.engine.generations[0].id]
    assert house.is_free


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (Refused(id=0, message="the input is empty", param="input"), InvalidField),
        (
            Refused(
                id=0,
                message="too many tokens",
                param="input",
                num_prompt_tokens=9,
                num_context_tokens=8,
            ),
            PromptTooLong,
        ),
    ],
)
def test_a_refusal_names_the_field(event: Refused, error: type[LlmdError]) -> None:
    """It is `input`, whatever is wrong with it, in the worker's words."""
    house = House()
    house.engine.reply = lambda _query: [event]
    with pytest.raises(error) as caught:
        house.embeddings.embed("ann", [""], never)
    assert (caught.value.message, caught.value.param) == (event.message, "input")
    assert house.is_free


@pytest.mark.parametrize("at", ["asked", "answering"])
def test_the_place_is_given_back_when_the_engine_fails(at: str) -> None:
    """Before it took the request, and under it."""
    house = House()
    if at == "asked":
        house.engine.submit_error = EngineFailed("it just died")
    else:
        house.engine.reply = lambda _query: [EngineDied("it just died")]
    with pytest.raises(LlmdError, match="it just died"):
        house.embeddings.embed("ann", ["a"], never)
    assert house.is_free


def test_a_worker_for_embeddings_alone_may_take_long_for_a_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A step is a whole text there, and must not be taken for a hang."""
    supervisor = Mock()
    monkeypatch.setattr(engine, "Supervisor", supervisor)
    settings = config.Engine(batch=64)
    for embeds_only in (False, True):
        made = engine.Engine(settings, config.Cache(), embeds_only=embeds_only)
        made.start(Model(name="m.gguf", path="/m.gguf"))
    starts: list[Start] = [call.args[1] for call in supervisor.call_args_list]
    assert [start.embeds_only for start in starts] == [False, True]
    assert [start.max_batch_tokens for start in starts] == [64, 8192]
