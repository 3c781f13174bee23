"""Responses that are cancelled, refused or deleted."""

from __future__ import annotations

from typing import Any

import pytest

from llmd.engine.protocol import Delta
from llmd.errors import (
    Conflict,
    InvalidField,
    StoreFull,
    UnknownModel,
    UnknownResponse,
    UnknownSession,
)
from tests.support.answers import is_free
from tests.support.conversation import ResponsesClient, answer, user
from tests.support.fake_engine import begins, done
from tests.support.service import Service


@pytest.fixture
def client(service: Service) -> ResponsesClient:
    """Provide a client of responses."""
    return ResponsesClient(service)


def test_a_response_that_is_given_up_is_kept_as_far_as_it_came(client: ResponsesClient) -> None:
    """A cancelled response is stored with its text so far and can be continued."""
    client.engine.script = begins("Hel")
    client.engine.on_cancel = [Delta(0, "lo"), done("cancelled")]
    run = client.start("r1", "a")
    assert next(run) == Delta(0, "Hel")
    run.close()
    assert client.get("r1") == "cancelled: Hello"
    [turn] = client.service.sessions.turns(client.owner, "r1")
    assert (turn.assistant, turn.finish_reason) == ("Hello", "cancelled")
    assert [message.content for message in client.say("r2", "b", previous="r1")] == [
        "a",
        "Hello",
        "b",
    ]


def test_a_response_that_is_given_up_before_its_first_word_is_not_kept(
    client: ResponsesClient,
) -> None:
    """A response that is cancelled before its first text is not stored."""
    client.engine.script = begins()
    client.start("r1", "a").close()
    assert client.sessions() == {}
    with pytest.raises(UnknownResponse):
        client.get("r1")


def test_a_response_that_cannot_be_stored_is_not_acknowledged(client: ResponsesClient) -> None:
    """If a response cannot be stored, the run ends in an error."""
    run = client.start("r1", "a")
    client.service.db.is_full = True
    with pytest.raises(StoreFull):
        client.finish(run)
    assert run.outcome is None
    assert is_free(client.service)


def test_a_session_that_was_deleted_meanwhile_does_not_come_back(client: ResponsesClient) -> None:
    """A session that was deleted during an answer is not created again."""
    client.say("r1", "a")
    run = client.start("r2", "b", previous="r1")
    client.service.responses.delete(client.owner, "r1")
    with pytest.raises(UnknownSession):
        client.finish(run)
    assert run.outcome is None
    assert client.sessions() == {}


def test_a_branch_of_what_was_deleted_meanwhile_is_not_made(client: ResponsesClient) -> None:
    """A branch of a response that was deleted meanwhile is not stored."""
    client.say("r1", "a")
    client.say("r2", "b", previous="r1")
    run = client.start("r3", "c", previous="r1")
    client.service.responses.delete(client.owner, "r1")
    with pytest.raises(UnknownResponse):
        client.finish(run)
    assert run.outcome is None
    assert client.sessions() == {"r1": ["a", "b"]}


# Deletion


def test_a_deleted_response_is_forgotten_by_the_engine(client: ResponsesClient) -> None:
    """Deleting any response of a session deletes the KV states of the session."""
    for response, previous in (("r1", None), ("r2", "r1"), ("r3", "r2")):
        client.say(response, response, previous=previous)
    for response, left in (
        ("r2", {"r1": ["r1", "r2", "r3"]}),
        ("r3", {"r1": ["r1", "r2"]}),
        ("r1", {"r1": ["r1", "r2"]}),
    ):
        client.service.responses.delete(client.owner, response)
        assert client.engine.forgotten[-1] == (client.owner, "r1")
        assert client.sessions() == left
        with pytest.raises(UnknownResponse):
            client.get(response)
    assert len(client.engine.forgotten) == 3


def test_a_response_after_the_last_was_deleted_goes_on_from_the_one_before(
    client: ResponsesClient,
) -> None:
    """After the last response was deleted, the one before it continues in its session."""
    client.say("r1", "a")
    client.say("r2", "b", previous="r1")
    client.service.responses.delete(client.owner, "r2")
    assert client.say("r3", "c", previous="r1") == [user("a"), answer("a"), user("c")]
    assert client.sessions() == {"r1": ["a", "c"]}


# Refusals


def test_a_response_of_another_key_is_unknown(client: ResponsesClient) -> None:
    """A response of another key can neither be read, continued nor deleted."""
    client.say("r1", "a")
    other, responses = client.service.other_key.id, client.service.responses
    with pytest.raises(UnknownResponse):
        responses.get(other, "r1")
    with pytest.raises(UnknownResponse):
        responses.delete(other, "r1")
    with pytest.raises(UnknownResponse):
        client.start("r2", "b", owner=other, previous="r1")
    assert client.engine.forgotten == []
    assert client.get("r1")
    assert is_free(client.service)


def test_a_conversation_of_another_key_is_another(client: ResponsesClient) -> None:
    """Conversations of two keys with the same ID are different conversations."""
    client.say("r1", "a", conversation="rome")
    assert client.say("r2", "b", conversation="rome", owner=client.service.other_key.id) == [
        user("b")
    ]
    assert client.sessions() == {"rome": ["a"]}


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"previous": "r1", "conversation": "rome"}, InvalidField),
        ({"previous": "nowhere"}, UnknownResponse),
        ({"conversation": "a b"}, InvalidField),
        ({"conversation": ""}, InvalidField),
        ({"model": "nobody"}, UnknownModel),
        ({"model": "other.gguf"}, Conflict),
    ],
)
def test_what_cannot_be_is_refused_before_anybody_waits(
    client: ResponsesClient, fields: dict[str, Any], error: type[Exception]
) -> None:
    """An invalid request reaches neither the engine nor the store."""
    client.service.add_model("other.gguf")
    client.say("r1", "a")
    with pytest.raises(error):
        client.start("r2", "b", **fields)
    assert len(client.engine.requests) == 1
    assert client.sessions() == {"r1": ["a"]}
    assert is_free(client.service)
