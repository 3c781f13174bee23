"""Embeddings from the request to the engine and back."""

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
    """Return a vector for each input."""
    assert isinstance(query, Embed)
    return [Embedded(id=0, vectors=[b"vec!"] * len(query.inputs), num_tokens=7)]


class Setup:
    """Embeddings over a fake engine with one stream."""

    def __init__(self, embedder: FakeEngine | None = None) -> None:
        self.engine = FakeEngine("chat.gguf")
        self.engine.reply = embedded
        self.embedder = embedder
        self.admission = Admission(1, 0)
        self.embeddings = Embeddings(self.engine, embedder, self.admission)

    @property
    def is_free(self) -> bool:
        """Whether no request is admitted or queued."""
        return (self.admission.num_active, self.admission.num_queued) == (0, 0)


def test_embeddings_come_with_the_number_of_tokens_and_the_model() -> None:
    """The inputs reach the engine unchanged, and the stream is free at the end."""
    setup = Setup()
    result = setup.embeddings.embed("ann", ["a text", [1, 2]], never)
    assert (result.vectors, result.num_tokens) == ([b"vec!"] * 2, 7)
    assert result.model == "chat.gguf"
    (query,) = setup.engine.queries
    assert isinstance(query, Embed)
    assert query.inputs == ["a text", [1, 2]]
    assert setup.is_free


def test_a_model_for_embeddings_is_asked_in_place_of_the_one_that_answers() -> None:
    """The embedding model must be ready; the state of the other model does not matter."""
    embedder = FakeEngine("embed.gguf")
    embedder.reply = embedded
    setup = Setup(embedder)
    setup.engine.not_ready = EngineFailed("no model")
    assert setup.embeddings.embed("ann", ["a"], never).model == "embed.gguf"
    assert setup.embeddings.model == "embed.gguf"
    assert setup.engine.queries == []
    embedder.not_ready = EngineFailed("it cannot be loaded")
    with pytest.raises(EngineFailed, match="it cannot be loaded"):
        setup.embeddings.embed("ann", ["a"], never)
    assert setup.is_free


def test_closing_ends_the_model_for_embeddings_alone() -> None:
    """`close` stops the embedding model but not the model that generates."""
    embedder = FakeEngine("embed.gguf")
    setup = Setup(embedder)
    setup.embeddings.close()
    assert (embedder.model, setup.engine.model) == (None, "chat.gguf")


def test_embeddings_take_a_stream_as_answers_do() -> None:
    """A stream is taken before the query and held until its answer."""
    setup = Setup()
    setup.engine.reply = lambda _query: []
    waiting = Background(lambda: setup.embeddings.embed("ann", ["a"], never))
    until(lambda: setup.engine.queries)
    assert setup.admission.num_active == 1
    setup.engine.generations[0].put(Embedded(id=0, vectors=[b"late"], num_tokens=1))
    assert waiting.wait().vectors == [b"late"]
    assert setup.is_free


def test_embeddings_for_a_client_that_disconnects_are_cancelled() -> None:
    """If the client disconnects, the query is cancelled."""
    setup = Setup()
    setup.engine.reply = lambda _query: []
    with pytest.raises(ClientGone):
        setup.embeddings.embed("ann", ["a"], lambda: bool(setup.engine.queries))
    assert setup.engine.cancelled == [setup.engine.generations[0].id]
    assert setup.is_free


def test_embeddings_end_with_the_time_to_drain() -> None:
    """When the time to drain is over, the query is cancelled with an error."""
    setup = Setup()
    setup.engine.reply = lambda _query: []
    waiting = Background(lambda: setup.embeddings.embed("ann", ["a"], never))
    until(lambda: setup.engine.queries)
    setup.admission.drain()
    setup.admission.expire()
    with pytest.raises(Draining):
        waiting.wait()
    assert setup.engine.cancelled == [setup.engine.generations[0].id]
    assert setup.is_free


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
    """The error has the message of the worker and names the field `input`."""
    setup = Setup()
    setup.engine.reply = lambda _query: [event]
    with pytest.raises(error) as caught:
        setup.embeddings.embed("ann", [""], never)
    assert (caught.value.message, caught.value.param) == (event.message, "input")
    assert setup.is_free


@pytest.mark.parametrize("at", ["asked", "answering"])
def test_the_stream_is_free_again_when_the_engine_fails(at: str) -> None:
    """The stream is free again if the engine fails before or during the query."""
    setup = Setup()
    if at == "asked":
        setup.engine.submit_error = EngineFailed("it just died")
    else:
        setup.engine.reply = lambda _query: [EngineDied("it just died")]
    with pytest.raises(LlmdError, match="it just died"):
        setup.embeddings.embed("ann", ["a"], never)
    assert setup.is_free


def test_a_worker_for_embeddings_alone_may_take_long_for_a_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A step of an embedding model may hold a whole text, which must not count as a hang."""
    supervisor = Mock()
    monkeypatch.setattr(engine, "Supervisor", supervisor)
    settings = config.Engine(batch=64)
    for embeds_only in (False, True):
        made = engine.Engine(settings, config.Cache(), embeds_only=embeds_only)
        made.start(Model(name="m.gguf", path="/m.gguf"))
    starts: list[Start] = [call.args[1] for call in supervisor.call_args_list]
    assert [start.embeds_only for start in starts] == [False, True]
    assert [start.max_batch_tokens for start in starts] == [64, 8192]
