"""The dispatch of queries and of requests for embeddings."""

from __future__ import annotations

import threading
from typing import Any

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
    Message,
    Part,
    Refused,
    Render,
    Text,
    Tokenize,
    Tokens,
)
from llmd.errors import InvalidField
from llmd.worker.dispatch import MAX_PIECES_PER_STEP, MAX_QUERY_CHARS, EmbeddingDispatcher
from llmd.worker.text_thread import LONG_CHARS
from tests.support import fake_embedder
from tests.support.dispatch_harness import BEGIN, WAIT_S, Harness, submit
from tests.support.fake_backend import END, SPELLING, Clock


@pytest.fixture
def harness() -> Harness:
    """Return a harness."""
    return Harness()


# Queries


@pytest.mark.parametrize(
    ("special", "parse", "tokens"),
    [
        (False, True, [ord("a"), END]),
        (True, True, [BEGIN, ord("a"), END]),
        (False, False, [ord("a"), *SPELLING.encode()]),
    ],
)
def test_a_text_is_tokenised(
    harness: Harness, special: bool, parse: bool, tokens: list[int]
) -> None:
    """A text becomes tokens with their bytes; special tokens are added or parsed as requested."""
    text = f"a{SPELLING}"
    harness.handle(Tokenize(id=1, text=text, with_special=special, parse_special=parse))
    [answer] = harness.events
    assert isinstance(answer, Tokens)
    assert (answer.id, answer.tokens) == (1, tokens)
    assert answer.pieces[-1] == (SPELLING.encode() if parse else b">")
    assert b"".join(answer.pieces) == b"\x01" * special + text.encode()


def test_tokens_are_converted_to_a_text(harness: Harness) -> None:
    """Tokens become a text, in which invalid UTF-8 is shown as one replacement character."""
    harness.handle(Detokenize(1, [*"é".encode(), END, 0xC3]), Detokenize(2, []))
    assert harness.events == [Text(1, f"é{SPELLING}\ufffd"), Text(2, "")]


def test_a_prompt_is_rendered_as_the_model_would_read_it(harness: Harness) -> None:
    """A rendered prompt is one text, which includes the text of the template."""
    harness.handle(Render(1, ChatPrompt([Message(role="user", content="hi")])))
    assert harness.events == [Text(1, "user:hiassistant:")]


def test_a_query_that_cannot_be_answered_is_refused(harness: Harness) -> None:
    """A refusal names the field that is wrong, and the next query is answered."""
    harness.handle(
        Detokenize(1, [5, END + 1]),
        Tokenize(id=2, text="x" * (MAX_QUERY_CHARS + 1)),
        Render(3, ChatPrompt([Message(role="user", content="refuse me")])),
        Tokenize(id=4, text="x"),
    )
    *refused, answer = harness.events
    assert [event.id for event in refused if isinstance(event, Refused)] == [1, 2, 3]
    assert [event.param for event in refused if isinstance(event, Refused)] == [
        "tokens",
        "content",
        "prompt",
    ]
    assert isinstance(answer, Tokens)


def test_an_unknown_token_is_named_with_the_last_valid_one(harness: Harness) -> None:
    """The refusal of an unknown token names it and the last token of the vocabulary."""
    harness.handle(Detokenize(1, [END + 7]))
    [refused] = harness.events
    assert isinstance(refused, Refused)
    assert f"{END + 7}" in refused.message
    assert f"its last is {END}" in refused.message


def test_a_text_that_is_too_long_is_not_tokenised(harness: Harness) -> None:
    """A text of more than `MAX_QUERY_CHARS` is not tokenised."""
    harness.handle(Tokenize(id=1, text="x" * (MAX_QUERY_CHARS + 1)))
    assert harness.backend.num_tokenized == 0
    harness.handle(Tokenize(id=2, text="x" * MAX_QUERY_CHARS))
    harness.take_compiled()
    harness.run()
    assert isinstance(harness.events_of(2)[0], Tokens)


def test_a_long_text_is_tokenised_beside_the_answers(harness: Harness) -> None:
    """Answers go on while a long text is tokenised, and its tokens are spelled step by step."""
    text = "x" * (2 * MAX_PIECES_PER_STEP + LONG_CHARS)
    read_in: list[int] = []
    tokenize = harness.backend.tokenize
    gate = threading.Event()

    def wait_and_tokenize(parts: list[Part], **options: Any) -> list[int]:
        if parts[0].text == text:
            read_in.append(threading.get_ident())
            assert gate.wait(WAIT_S)
        return tokenize(parts, **options)

    harness.backend.tokenize = wait_and_tokenize  # type: ignore[method-assign]
    harness.handle(Tokenize(id=1, text=text), submit(2))
    harness.run()
    assert harness.text(2) == "yes"
    assert harness.events_of(1) == []
    gate.set()
    harness.take_compiled()
    assert read_in != [threading.get_ident()]
    num_steps = 0
    while harness.dispatcher.has_work:
        assert harness.events_of(1) == []
        harness.dispatcher.step()
        num_steps += 1
    assert num_steps == -(-len(text) // MAX_PIECES_PER_STEP)
    [answered] = harness.events_of(1)
    assert isinstance(answered, Tokens)
    assert b"".join(answered.pieces) == text.encode()


def test_a_long_text_that_is_refused_ends_its_query(harness: Harness) -> None:
    """An error in the thread refuses the query, whatever it is, and the thread goes on."""
    for number, error in enumerate([InvalidField("no such text"), RuntimeError("unexpected")]):

        def fail(*_: Any, error: Exception = error, **__: Any) -> list[int]:
            raise error

        harness.backend.tokenize = fail  # type: ignore[method-assign]
        harness.handle(Tokenize(id=number, text="x" * (LONG_CHARS + 1)))
        harness.take_compiled()
        [refused] = harness.events_of(number)
        assert isinstance(refused, Refused)


def test_many_tokens_are_spelled_step_by_step(harness: Harness) -> None:
    """Queries with many tokens take turns, and answers go on between their steps."""
    many = [5] * (MAX_PIECES_PER_STEP + 1)
    harness.handle(Detokenize(1, many), Detokenize(2, many))
    assert harness.events == []
    harness.run()
    assert [event.id for event in harness.events if isinstance(event, Text)] == [1, 2]


# Embeddings


def test_embeddings_are_computed_beside_answers(harness: Harness) -> None:
    """A step runs an answer and an embedding, and emits a beat with the tokens of each."""
    harness.handle(submit(1), Embed(2, ["abc", "d"]))
    assert harness.dispatcher.has_work
    harness.dispatcher.step()
    beats = [event.num_step_tokens for event in harness.events if isinstance(event, Beat)]
    assert beats == [8, 6]
    [embedded] = harness.events_of(2)
    assert isinstance(embedded, Embedded)
    assert (len(embedded.vectors), embedded.num_tokens) == (2, 6)
    harness.run()
    assert harness.text(1) == "yes"


def test_an_embedding_can_be_cancelled(harness: Harness) -> None:
    """A cancelled embedding ends with `Done` and leaves no work."""
    harness.handle(Embed(1, ["abc"]), Cancel(1))
    assert not harness.dispatcher.has_work
    [done] = harness.events_of(1)
    assert isinstance(done, Done)
    assert done.finish_reason == "cancelled"


def test_a_model_without_embeddings_refuses_them(harness: Harness) -> None:
    """A model that makes no embeddings refuses a request for them, and answers the next prompt."""
    harness.backend.embedder = None
    harness.handle(Embed(1, ["abc"]), submit(2))
    assert harness.events_of(1) == [
        Refused(id=1, message="this model makes no vectors", param="input")
    ]
    harness.run()
    assert harness.text(2) == "yes"


# A model that only makes embeddings


class EmbeddingHarness:
    """The dispatcher of a model that only makes embeddings, and the events that it emitted."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.dispatcher = EmbeddingDispatcher(
            fake_embedder.FakeBackend(), self.events.append, Clock()
        )


@pytest.fixture
def embedding() -> EmbeddingHarness:
    """Return a harness of a model that only makes embeddings."""
    return EmbeddingHarness()


def test_each_step_of_an_embedding_emits_a_beat(embedding: EmbeddingHarness) -> None:
    """The beat of a step holds its tokens, its duration and all tokens computed so far."""
    embedding.dispatcher.handle(Embed(1, ["abc", "defghij"]))
    while embedding.dispatcher.has_work:
        embedding.dispatcher.step()
    *beats_before, embedded, beat = embedding.events
    assert isinstance(embedded, Embedded)
    assert (embedded.id, len(embedded.vectors), embedded.num_tokens) == (1, 2, 12)
    beats = [event for event in (*beats_before, beat) if isinstance(event, Beat)]
    assert [(one.num_running, one.num_prompt_tokens, one.num_step_tokens) for one in beats] == [
        (1, 8, 8),
        (0, 12, 4),
    ]
    assert all(one.step_s > 0 for one in beats)


def test_an_empty_input_is_refused(embedding: EmbeddingHarness) -> None:
    """An empty input is refused during a step, and leaves no work."""
    embedding.dispatcher.handle(Embed(1, [""]))
    embedding.dispatcher.step()
    refused = embedding.events[0]
    assert isinstance(refused, Refused)
    assert (refused.id, refused.param) == (1, "input")
    assert not embedding.dispatcher.has_work


def test_an_embedding_is_cancelled_once(embedding: EmbeddingHarness) -> None:
    """A cancelled embedding leaves no work, and a second cancel is ignored."""
    embedding.dispatcher.handle(Embed(1, ["abc"]))
    embedding.dispatcher.handle(Cancel(1))
    embedding.dispatcher.handle(Cancel(1))
    [done] = embedding.events
    assert isinstance(done, Done)
    assert (done.id, done.finish_reason) == (1, "cancelled")
    assert not embedding.dispatcher.has_work


@pytest.mark.parametrize(
    "command",
    [
        submit(1),
        Tokenize(id=1, text="hi"),
        Detokenize(1, [1]),
        Render(1, ChatPrompt([])),
    ],
)
def test_all_other_requests_are_refused(embedding: EmbeddingHarness, command: Command) -> None:
    """A request for anything but embeddings is refused, so that no client waits in vain."""
    embedding.dispatcher.handle(command)
    [refused] = embedding.events
    assert isinstance(refused, Refused)
    assert refused.id == 1
    assert not embedding.dispatcher.has_work


def test_there_is_no_state_to_forget(embedding: EmbeddingHarness) -> None:
    """Forgetting an owner emits nothing, since embeddings leave no KV states."""
    embedding.dispatcher.handle(Forget(owner="ann"))
    assert embedding.events == []
