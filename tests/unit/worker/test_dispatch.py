"""What becomes of queries, and of what is to be a vector."""

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
    Message,
    Refused,
    Render,
    Text,
    Tokenize,
    Tokens,
)
from llmd.worker.dispatch import MAX_QUERY_CHARS, EmbeddingDispatcher
from tests.support import fake_embedder
from tests.support.dispatch_harness import BEGIN, Harness, submit
from tests.support.fake_backend import END, SPELLING, Clock


@pytest.fixture
def harness() -> Harness:
    """Give a harness."""
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
def test_a_text_is_cut_into_tokens(
    harness: Harness, special: bool, parse: bool, tokens: list[int]
) -> None:
    """Each with its bytes, special ones as they are spelled."""
    text = f"a{SPELLING}"
    harness.handle(Tokenize(id=1, text=text, with_special=special, parse_special=parse))
    [told] = harness.events
    assert isinstance(told, Tokens)
    assert (told.id, told.tokens) == (1, tokens)
    assert told.pieces[-1] == (SPELLING.encode() if parse else b">")
    assert b"".join(told.pieces) == b"\x01" * special + text.encode()


def test_tokens_are_joined_to_a_text(harness: Harness) -> None:
    """Bytes that are no text are shown as such, once."""
    harness.handle(Detokenize(1, [*"é".encode(), END, 0xC3]), Detokenize(2, []))
    assert harness.events == [Text(1, f"é{SPELLING}\ufffd"), Text(2, "")]


def test_a_prompt_is_rendered_as_the_model_would_get_it(harness: Harness) -> None:
    """As one text."""
    harness.handle(Render(1, ChatPrompt([Message(role="user", content="hi")])))
    assert harness.events == [Text(1, "user:hiassistant:")]


def test_a_query_that_cannot_be_answered_is_refused(harness: Harness) -> None:
    """With the field that is wrong; the next one is answered."""
    harness.handle(
        Detokenize(1, [5, END + 1]),
        Tokenize(id=2, text="x" * (MAX_QUERY_CHARS + 1)),
        Render(3, ChatPrompt([Message(role="user", content="refuse me")])),
        Tokenize(id=4, text="x"),
    )
    *refused, told = harness.events
    assert [event.id for event in refused if isinstance(event, Refused)] == [1, 2, 3]
    assert [event.param for event in refused if isinstance(event, Refused)] == [
        "tokens",
        "content",
        "prompt",
    ]
    assert isinstance(told, Tokens)


def test_an_unknown_token_is_named_with_the_last_that_there_is(harness: Harness) -> None:
    """So that the client knows which vocabulary it has to do with."""
    harness.handle(Detokenize(1, [END + 7]))
    [refused] = harness.events
    assert isinstance(refused, Refused)
    assert f"{END + 7}" in refused.message
    assert f"its last is {END}" in refused.message


def test_a_text_that_is_too_long_is_not_even_looked_at(harness: Harness) -> None:
    """It would hold those up who generate; one of just that length is read."""
    harness.handle(Tokenize(id=1, text="x" * (MAX_QUERY_CHARS + 1)))
    assert harness.backend.num_tokenized == 0
    harness.handle(Tokenize(id=2, text="x" * MAX_QUERY_CHARS))
    assert isinstance(harness.of(2)[0], Tokens)


# Vectors


def test_vectors_are_made_beside_answers(harness: Harness) -> None:
    """Each step runs both; a beat tells of the tokens of each."""
    harness.handle(submit(1), Embed(2, ["abc", "d"]))
    assert harness.dispatcher.has_work
    harness.dispatcher.step()
    beats = [event.num_step_tokens for event in harness.events if isinstance(event, Beat)]
    assert beats == [8, 6]
    [embedded] = harness.of(2)
    assert isinstance(embedded, Embedded)
    assert (len(embedded.vectors), embedded.num_tokens) == (2, 6)
    harness.run()
    assert harness.text(1) == "yes"


def test_vectors_may_be_cancelled(harness: Harness) -> None:
    """As answers may."""
    harness.handle(Embed(1, ["abc"]), Cancel(1))
    assert not harness.dispatcher.has_work
    [done] = harness.of(1)
    assert isinstance(done, Done)
    assert done.finish_reason == "cancelled"


def test_a_model_that_makes_no_vectors_refuses_them(harness: Harness) -> None:
    """And answers as before."""
    harness.backend.embedder = None
    harness.handle(Embed(1, ["abc"]), submit(2))
    assert harness.of(1) == [Refused(id=1, message="this model makes no vectors", param="input")]
    harness.run()
    assert harness.text(2) == "yes"


# A model that makes vectors and nothing else


class Vectors:
    """The desk of such a model, and all that it told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.dispatcher = EmbeddingDispatcher(
            fake_embedder.FakeBackend(), self.events.append, Clock()
        )


@pytest.fixture
def vectors() -> Vectors:
    """Give a desk of vectors."""
    return Vectors()


def test_vectors_are_made_with_a_beat_for_each_step(vectors: Vectors) -> None:
    """The beat tells how far it is, and how long the step took."""
    vectors.dispatcher.handle(Embed(1, ["abc", "defghij"]))
    while vectors.dispatcher.has_work:
        vectors.dispatcher.step()
    *beats_before, embedded, beat = vectors.events
    assert isinstance(embedded, Embedded)
    assert (embedded.id, len(embedded.vectors), embedded.num_tokens) == (1, 2, 12)
    beats = [event for event in (*beats_before, beat) if isinstance(event, Beat)]
    assert [(one.num_running, one.num_prompt_tokens, one.num_step_tokens) for one in beats] == [
        (1, 8, 8),
        (0, 12, 4),
    ]
    assert all(one.step_s > 0 for one in beats)


def test_an_input_that_cannot_be_is_refused(vectors: Vectors) -> None:
    """In the course of a step, after which there is nothing to do."""
    vectors.dispatcher.handle(Embed(1, [""]))
    vectors.dispatcher.step()
    refused = vectors.events[0]
    assert isinstance(refused, Refused)
    assert (refused.id, refused.param) == (1, "input")
    assert not vectors.dispatcher.has_work


def test_vectors_are_cancelled_there_too(vectors: Vectors) -> None:
    """Then there is nothing to do; a cancel of what has ended is nothing."""
    vectors.dispatcher.handle(Embed(1, ["abc"]))
    vectors.dispatcher.handle(Cancel(1))
    vectors.dispatcher.handle(Cancel(1))
    [done] = vectors.events
    assert isinstance(done, Done)
    assert (done.id, done.finish_reason) == (1, "cancelled")
    assert not vectors.dispatcher.has_work


@pytest.mark.parametrize(
    "command",
    [
        submit(1),
        Tokenize(id=1, text="hi"),
        Detokenize(1, [1]),
        Render(1, ChatPrompt([])),
    ],
)
def test_whatever_else_is_asked_is_refused(vectors: Vectors, command: Command) -> None:
    """Nobody waits for an answer that never comes."""
    vectors.dispatcher.handle(command)
    [refused] = vectors.events
    assert isinstance(refused, Refused)
    assert refused.id == 1
    assert not vectors.dispatcher.has_work


def test_there_is_nothing_to_forget(vectors: Vectors) -> None:
    """Vectors leave nothing behind."""
    vectors.dispatcher.handle(Forget(owner="ann"))
    assert vectors.events == []
