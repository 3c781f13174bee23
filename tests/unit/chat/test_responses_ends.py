"""Responses that are given up, refused, or taken back."""

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
from tests.support.conversation import Talk, answer, user
from tests.support.fake_engine import begins, done
from tests.support.service import Service


@pytest.fixture
def talk(service: Service) -> Talk:
    """Give a user."""
    return Talk(service)


def test_a_response_that_is_given_up_is_kept_as_far_as_it_came(talk: Talk) -> None:
    """As cancelled, so that it can be continued."""
    talk.engine.script = begins("Hel")
    talk.engine.on_cancel = [Delta(0, "lo"), done("cancelled")]
    run = talk.start("r1", "a")
    assert next(run) == Delta(0, "Hel")
    run.close()
    assert talk.get("r1") == "cancelled: Hello"
    [turn] = talk.service.sessions.turns(talk.owner, "r1")
    assert (turn.assistant, turn.finish_reason) == ("Hello", "cancelled")
    assert [message.content for message in talk.say("r2", "b", previous="r1")] == [
        "a",
        "Hello",
        "b",
    ]


def test_a_response_that_is_given_up_before_its_first_word_is_not_kept(talk: Talk) -> None:
    """There is nothing to go on from."""
    talk.engine.script = begins()
    talk.start("r1", "a").close()
    assert talk.sessions() == {}
    with pytest.raises(UnknownResponse):
        talk.get("r1")


def test_a_response_that_cannot_be_stored_is_not_acknowledged(talk: Talk) -> None:
    """The error comes in the place of the end."""
    run = talk.start("r1", "a")
    talk.service.db.is_full = True
    with pytest.raises(StoreFull):
        talk.finish(run)
    assert run.outcome is None
    assert is_free(talk.service)


def test_a_session_that_was_deleted_meanwhile_does_not_come_back(talk: Talk) -> None:
    """Its next turn would stand there alone."""
    talk.say("r1", "a")
    run = talk.start("r2", "b", previous="r1")
    talk.service.responses.delete(talk.owner, "r1")
    with pytest.raises(UnknownSession):
        talk.finish(run)
    assert run.outcome is None
    assert talk.sessions() == {}


def test_a_branch_of_what_was_deleted_meanwhile_is_not_made(talk: Talk) -> None:
    """What its client took back is not kept for it in another place."""
    talk.say("r1", "a")
    talk.say("r2", "b", previous="r1")
    run = talk.start("r3", "c", previous="r1")
    talk.service.responses.delete(talk.owner, "r1")
    with pytest.raises(UnknownResponse):
        talk.finish(run)
    assert run.outcome is None
    assert talk.sessions() == {"r1": ["a", "b"]}


# Taking back


def test_a_deleted_response_is_forgotten_by_the_engine(talk: Talk) -> None:
    """What is kept warm of its session has its text, whichever turn it was."""
    for response, previous in (("r1", None), ("r2", "r1"), ("r3", "r2")):
        talk.say(response, response, previous=previous)
    for response, left in (
        ("r2", {"r1": ["r1", "r2", "r3"]}),
        ("r3", {"r1": ["r1", "r2"]}),
        ("r1", {"r1": ["r1", "r2"]}),
    ):
        talk.service.responses.delete(talk.owner, response)
        assert talk.engine.forgotten[-1] == (talk.owner, "r1")
        assert talk.sessions() == left
        with pytest.raises(UnknownResponse):
            talk.get(response)
    assert len(talk.engine.forgotten) == 3


def test_a_response_after_the_last_was_deleted_goes_on_from_the_one_before(talk: Talk) -> None:
    """In the same session: nothing follows it any more."""
    talk.say("r1", "a")
    talk.say("r2", "b", previous="r1")
    talk.service.responses.delete(talk.owner, "r2")
    assert talk.say("r3", "c", previous="r1") == [user("a"), answer("a"), user("c")]
    assert talk.sessions() == {"r1": ["a", "c"]}


# Refusals


def test_a_response_of_another_key_is_unknown(talk: Talk) -> None:
    """It can neither be shown, continued nor deleted, and the engine forgets nothing."""
    talk.say("r1", "a")
    other, responses = talk.service.other_key.id, talk.service.responses
    with pytest.raises(UnknownResponse):
        responses.get(other, "r1")
    with pytest.raises(UnknownResponse):
        responses.delete(other, "r1")
    with pytest.raises(UnknownResponse):
        talk.start("r2", "b", owner=other, previous="r1")
    assert talk.engine.forgotten == []
    assert talk.get("r1")
    assert is_free(talk.service)


def test_a_conversation_of_another_key_is_another(talk: Talk) -> None:
    """Though it has the same id."""
    talk.say("r1", "a", conversation="rome")
    assert talk.say("r2", "b", conversation="rome", owner=talk.service.other_key.id) == [user("b")]
    assert talk.sessions() == {"rome": ["a"]}


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
    talk: Talk, fields: dict[str, Any], error: type[Exception]
) -> None:
    """Nothing is asked of the engine, and nothing stored."""
    talk.service.add_model("other.gguf")
    talk.say("r1", "a")
    with pytest.raises(error):
        talk.start("r2", "b", **fields)
    assert len(talk.engine.requests) == 1
    assert talk.sessions() == {"r1": ["a"]}
    assert is_free(talk.service)
