"""Responses without HTTP: which turns are in the prompt, and what is kept of an answer."""

from __future__ import annotations

import pytest

from llmd.engine.protocol import Call, CallDelta, Message
from llmd.errors import UnknownResponse
from llmd.store.sessions import NewTurn
from tests.support.conversation import Talk, answer, user
from tests.support.fake_engine import begins, done, says
from tests.support.service import Background, Service, until


@pytest.fixture
def talk(service: Service) -> Talk:
    """Give a user."""
    return Talk(service)


def test_a_response_is_the_first_turn_of_a_session_with_its_id(talk: Talk) -> None:
    """With all that `/answer` keeps of a turn."""
    assert talk.say("r1") == [user("hi")]
    assert talk.get("r1") == "stop: re: hi"
    request = talk.engine.requests[-1]
    assert (request.owner, request.session, request.num_turns) == (talk.owner, "r1", 0)
    [turn] = talk.service.sessions.turns(talk.owner, "r1")
    assert (turn.user, turn.assistant, turn.messages) == ("hi", "re: hi", None)
    assert (turn.profile, turn.profile_revision, turn.model) == ("default", 1, "tiny.gguf")
    assert (turn.num_prompt_tokens, turn.num_cached_tokens, turn.num_completion_tokens) == (
        11,
        4,
        1,
    )
    assert (turn.finish_reason, turn.seed) == ("stop", 1)


def test_a_response_goes_on_from_the_one_before(talk: Talk) -> None:
    """All turns are in the prompt, in the same session, which the engine keeps warm."""
    talk.say("r1", "a")
    talk.say("r2", "b", previous="r1")
    assert talk.say("r3", "c", previous="r2") == [
        *(user("a"), answer("a")),
        *(user("b"), answer("b")),
        user("c"),
    ]
    assert talk.sessions() == {"r1": ["a", "b", "c"]}
    assert {request.session for request in talk.engine.requests} == {"r1"}


def test_a_response_that_was_continued_already_gets_a_branch(talk: Talk) -> None:
    """Its prompt has nothing of what came after, and both go on from there."""
    talk.say("r1", "a")
    talk.say("r2", "b", previous="r1")
    assert talk.say("r3", "c", previous="r1") == [user("a"), answer("a"), user("c")]
    assert talk.engine.requests[-1].session == "r3"
    assert talk.sessions() == {"r1": ["a", "b"], "r3": ["a", "c"]}
    talk.say("r4", "d", previous="r2")
    talk.say("r5", "e", previous="r3")
    assert talk.sessions() == {"r1": ["a", "b", "d"], "r3": ["a", "c", "e"]}


def test_two_who_go_on_from_one_response_at_once_get_two_sessions(talk: Talk) -> None:
    """The second waits, sees that the first was there before, and begins a branch."""
    talk.say("r1", "a")
    talk.engine.script = begins("re: b")
    first = talk.start("r2", "b", previous="r1")
    second = Background(lambda: talk.start("r3", "c", previous="r1"))
    until(lambda: talk.service.admission.num_queued)
    assert len(talk.engine.requests) == 2
    talk.engine.script = says("re: c")
    talk.engine.generations[-1].put(done())
    for _ in first:
        pass
    first.close()
    assert talk.finish(second.wait()) == [user("a"), answer("a"), user("c")]
    assert talk.sessions() == {"r1": ["a", "b"], "r3": ["a", "c"]}


def test_a_conversation_is_a_session_by_its_id(talk: Talk) -> None:
    """A new one is made; turns of `/answer` belong to it as well."""
    talk.say("r1", "a", conversation="rome")
    turn = NewTurn(user="b", assistant="re: b", created_at=0)
    talk.service.sessions.append(talk.owner, "rome", turn)
    messages = talk.say("r2", "c", conversation="rome")
    assert messages == [user("a"), answer("a"), user("b"), answer("b"), user("c")]
    assert talk.sessions() == {"rome": ["a", "b", "c"]}
    assert talk.engine.requests[-1].session == "rome"
    talk.say("r3", "d", previous="r2")
    assert talk.sessions() == {"rome": ["a", "b", "c", "d"]}


def test_what_is_not_to_be_stored_is_not(talk: Talk) -> None:
    """It has the history, but nothing goes on from it, and it needs no room."""
    talk.say("r1", "a")
    talk.service.db.is_full = True
    assert talk.say("r2", "b", previous="r1", store=False) == [user("a"), answer("a"), user("b")]
    talk.say("r3", "c", store=False)
    talk.say("r4", "d", store=False, conversation="rome")
    talk.service.db.is_full = False
    assert talk.sessions() == {"r1": ["a"]}
    for response in ("r2", "r3", "r4"):
        with pytest.raises(UnknownResponse):
            talk.get(response)


def test_instructions_hold_for_one_answer(talk: Talk) -> None:
    """They come first, in the place of the profile's system text, and are not kept."""
    talk.service.put_profile("default", system="Be kind.")
    brief = Message(role="system", content="Be brief.")
    assert talk.say("r1", "a", instructions="Be brief.") == [brief, user("a")]
    kind = Message(role="system", content="Be kind.")
    assert talk.say("r2", "b", previous="r1") == [kind, user("a"), answer("a"), user("b")]


def _call(talk: Talk) -> Call:
    """Have `r1` answered by a call of a tool."""
    arguments = '{"city": "Köln"}'
    pieces = [CallDelta(id=0, index=0, arguments=piece) for piece in (arguments[:3], arguments[3:])]
    begun = CallDelta(id=0, index=0, name="weather")
    talk.engine.script = begins(then=[begun, *pieces, done("tool_calls")])
    run = talk.start("r1", "Is it warm?")
    talk.finish(run)
    assert run.outcome is not None
    [call] = run.outcome.calls
    return Call(name="weather", arguments=arguments, id=call.id)


def test_calls_and_their_results_are_kept_and_told_again(talk: Talk) -> None:
    """With the ids by which the client knows them."""
    call = _call(talk)
    called = Message(role="assistant", content="", calls=[call])
    result = Message(role="tool", content="30 °C", call_id=call.id, name="weather")
    said = [user("Is it warm?"), called, result]
    assert talk.say("r2", [result], previous="r1") == said
    assert talk.say("r3", "Thanks.", previous="r2") == [*said, answer("that"), user("Thanks.")]
    turns = talk.service.sessions.turns(talk.owner, "r1")
    assert [(turn.user, turn.assistant) for turn in turns] == [
        ("Is it warm?", ""),
        ("30 °C", "re: that"),
        ("Thanks.", "re: Thanks."),
    ]


def test_a_result_has_the_name_of_its_tool_though_the_call_was_in_another_response(
    talk: Talk,
) -> None:
    """The client tells the call by its id alone; some templates tell the model the name."""
    result = Message(role="tool", content="30 °C", call_id=_call(talk).id)
    *_, told = talk.say("r2", [result], previous="r1")
    assert told.name == "weather"
    _, _, told, *_ = talk.say("r3", "Thanks.", previous="r2")
    assert told.name == "weather"


def test_all_that_was_given_is_told_again(talk: Talk) -> None:
    """System texts and earlier answers of the client's own, too."""
    given = [Message(role="system", content="Be brief."), user("a"), answer("a"), user("b")]
    assert talk.say("r1", given) == given
    assert talk.say("r2", "c", previous="r1") == [*given, answer("that"), user("c")]
    [turn, _] = talk.service.sessions.turns(talk.owner, "r1")
    assert (turn.user, turn.assistant) == ("Be brief.\na\nre: a\nb", "re: that")


def test_turns_have_numbers_where_the_oldest_may_be_left_out(talk: Talk) -> None:
    """Messages of one turn go together; instructions and the question always stay."""
    talk.say("r1", "a")
    talk.say("r2", [user("b"), answer("b"), user("c")], previous="r1")
    messages = talk.say("r3", "d", previous="r2", instructions="Be brief.", truncate=True)
    assert messages == [
        Message(role="system", content="Be brief."),
        *(user("a", 0), answer("a", 0)),
        *(user("b", 1), answer("b", 1), user("c", 1), answer("that", 1)),
        user("d"),
    ]
    assert talk.engine.requests[-1].num_turns == 2
    talk.say("r4", "e", previous="r3")
    assert talk.engine.requests[-1].num_turns == 0
    assert {message.turn for message in talk.prompt()} == {-1}
