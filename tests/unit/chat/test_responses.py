"""Responses without HTTP: the turns in the prompt, and the stored turn."""

from __future__ import annotations

import pytest

from llmd.engine.protocol import Call, CallDelta, Delta, Message, Reasoning
from llmd.errors import UnknownResponse
from llmd.store.sessions import NewTurn
from tests.support.conversation import ResponsesClient, answer, user
from tests.support.fake_engine import begins, done, says
from tests.support.service import Background, Service, until


@pytest.fixture
def client(service: Service) -> ResponsesClient:
    """Provide a client of responses."""
    return ResponsesClient(service)


def test_a_response_is_the_first_turn_of_a_session_with_its_id(client: ResponsesClient) -> None:
    """The first response begins a session with its ID and stores a complete turn."""
    assert client.say("r1") == [user("hi")]
    assert client.get("r1") == "stop: re: hi"
    request = client.engine.requests[-1]
    assert (request.owner, request.session, request.num_turns) == (client.owner, "r1", 0)
    [turn] = client.service.sessions.turns(client.owner, "r1")
    assert (turn.user, turn.assistant, turn.messages) == ("hi", "re: hi", None)
    assert (turn.profile, turn.profile_revision, turn.model) == ("default", 1, "tiny.gguf")
    assert (turn.num_prompt_tokens, turn.num_cached_tokens, turn.num_completion_tokens) == (
        11,
        4,
        1,
    )
    assert (turn.finish_reason, turn.seed) == ("stop", 1)


def test_a_thought_is_stored_and_passed_on(client: ResponsesClient) -> None:
    """The thought of a response is in the prompt of those that continue it, also beside calls."""
    call = CallDelta(id=0, index=0, name="f", arguments="{}")
    client.engine.script = begins(then=[Reasoning(0, "Hm."), Delta(0, "Yes."), done()])
    client.finish(client.start("r1", "a"))
    client.engine.script = begins(then=[Reasoning(0, "Oh."), call, done("tool_calls")])
    client.finish(client.start("r2", "b", previous="r1"))
    messages = client.say("r3", "c", previous="r2")
    assert [one.reasoning for one in messages if one.role == "assistant"] == ["Hm.", "Oh."]
    turns = client.service.sessions.turns(client.owner, "r1")
    assert [turn.reasoning for turn in turns] == ["Hm.", "Oh.", ""]


def test_a_response_goes_on_from_the_one_before(client: ResponsesClient) -> None:
    """A continued response has all turns in its prompt and stays in the session."""
    client.say("r1", "a")
    client.say("r2", "b", previous="r1")
    assert client.say("r3", "c", previous="r2") == [
        *(user("a"), answer("a")),
        *(user("b"), answer("b")),
        user("c"),
    ]
    assert client.sessions() == {"r1": ["a", "b", "c"]}
    assert {request.session for request in client.engine.requests} == {"r1"}


def test_a_response_that_was_continued_already_gets_a_branch(client: ResponsesClient) -> None:
    """A response that was continued already can be continued again, in a new session."""
    client.say("r1", "a")
    client.say("r2", "b", previous="r1")
    assert client.say("r3", "c", previous="r1") == [user("a"), answer("a"), user("c")]
    assert client.engine.requests[-1].session == "r3"
    assert client.sessions() == {"r1": ["a", "b"], "r3": ["a", "c"]}
    client.say("r4", "d", previous="r2")
    client.say("r5", "e", previous="r3")
    assert client.sessions() == {"r1": ["a", "b", "d"], "r3": ["a", "c", "e"]}


def test_two_who_go_on_from_one_response_at_once_get_two_sessions(client: ResponsesClient) -> None:
    """Of two requests that continue one response, the second one begins a branch."""
    client.say("r1", "a")
    client.engine.script = begins("re: b")
    first = client.start("r2", "b", previous="r1")
    second = Background(lambda: client.start("r3", "c", previous="r1"))
    until(lambda: client.service.admission.num_queued)
    assert len(client.engine.requests) == 2
    client.engine.script = says("re: c")
    client.engine.generations[-1].put(done())
    for _ in first:
        pass
    first.close()
    assert client.finish(second.wait()) == [user("a"), answer("a"), user("c")]
    assert client.sessions() == {"r1": ["a", "b"], "r3": ["a", "c"]}


def test_a_conversation_is_a_session_by_its_id(client: ResponsesClient) -> None:
    """A conversation is a session, which may also have turns of `POST /answer`."""
    client.say("r1", "a", conversation="rome")
    turn = NewTurn(user="b", assistant="re: b", created_at=0)
    client.service.sessions.append(client.owner, "rome", turn)
    messages = client.say("r2", "c", conversation="rome")
    assert messages == [user("a"), answer("a"), user("b"), answer("b"), user("c")]
    assert client.sessions() == {"rome": ["a", "b", "c"]}
    assert client.engine.requests[-1].session == "rome"
    client.say("r3", "d", previous="r2")
    assert client.sessions() == {"rome": ["a", "b", "c", "d"]}


def test_what_is_not_to_be_stored_is_not(client: ResponsesClient) -> None:
    """With `store` off, the history is used but nothing is stored."""
    client.say("r1", "a")
    client.service.db.is_full = True
    assert client.say("r2", "b", previous="r1", store=False) == [user("a"), answer("a"), user("b")]
    client.say("r3", "c", store=False)
    client.say("r4", "d", store=False, conversation="rome")
    client.service.db.is_full = False
    assert client.sessions() == {"r1": ["a"]}
    for response in ("r2", "r3", "r4"):
        with pytest.raises(UnknownResponse):
            client.get(response)


def test_instructions_hold_for_one_answer(client: ResponsesClient) -> None:
    """Instructions replace the system text of the profile for one answer."""
    client.service.put_profile("default", system="Be kind.")
    brief = Message(role="system", content="Be brief.")
    assert client.say("r1", "a", instructions="Be brief.") == [brief, user("a")]
    kind = Message(role="system", content="Be kind.")
    assert client.say("r2", "b", previous="r1") == [kind, user("a"), answer("a"), user("b")]


def _call(client: ResponsesClient) -> Call:
    """Answer `r1` with a tool call. Return the call."""
    arguments = '{"city": "Köln"}'
    pieces = [CallDelta(id=0, index=0, arguments=piece) for piece in (arguments[:3], arguments[3:])]
    begun = CallDelta(id=0, index=0, name="weather")
    client.engine.script = begins(then=[begun, *pieces, done("tool_calls")])
    run = client.start("r1", "Is it warm?")
    client.finish(run)
    assert run.outcome is not None
    [call] = run.outcome.calls
    return Call(name="weather", arguments=arguments, id=call.id)


def test_calls_and_their_results_are_stored_and_repeated(client: ResponsesClient) -> None:
    """Tool calls and their results are in later prompts, with the IDs that the client knows."""
    call = _call(client)
    called = Message(role="assistant", content="", calls=[call])
    result = Message(role="tool", content="30 °C", call_id=call.id, name="weather")
    said = [user("Is it warm?"), called, result]
    assert client.say("r2", [result], previous="r1") == said
    assert client.say("r3", "Thanks.", previous="r2") == [*said, answer("that"), user("Thanks.")]
    turns = client.service.sessions.turns(client.owner, "r1")
    assert [(turn.user, turn.assistant) for turn in turns] == [
        ("Is it warm?", ""),
        ("30 °C", "re: that"),
        ("Thanks.", "re: Thanks."),
    ]


def test_a_result_has_the_name_of_its_tool_though_the_call_was_in_another_response(
    client: ResponsesClient,
) -> None:
    """The name of a tool is added to its result, since some templates need it."""
    result = Message(role="tool", content="30 °C", call_id=_call(client).id)
    *_, told = client.say("r2", [result], previous="r1")
    assert told.name == "weather"
    _, _, told, *_ = client.say("r3", "Thanks.", previous="r2")
    assert told.name == "weather"


def test_all_messages_of_the_client_are_repeated(client: ResponsesClient) -> None:
    """All messages from the client are in later prompts, whatever their roles."""
    given = [Message(role="system", content="Be brief."), user("a"), answer("a"), user("b")]
    assert client.say("r1", given) == given
    assert client.say("r2", "c", previous="r1") == [*given, answer("that"), user("c")]
    [turn, _] = client.service.sessions.turns(client.owner, "r1")
    assert (turn.user, turn.assistant) == ("Be brief.\na\nre: a\nb", "re: that")


def test_turns_have_numbers_where_the_oldest_may_be_left_out(client: ResponsesClient) -> None:
    """With `truncate`, messages have the numbers of their turns, except those that must stay."""
    client.say("r1", "a")
    client.say("r2", [user("b"), answer("b"), user("c")], previous="r1")
    messages = client.say("r3", "d", previous="r2", instructions="Be brief.", truncate=True)
    assert messages == [
        Message(role="system", content="Be brief."),
        *(user("a", 0), answer("a", 0)),
        *(user("b", 1), answer("b", 1), user("c", 1), answer("that", 1)),
        user("d"),
    ]
    assert client.engine.requests[-1].num_turns == 2
    client.say("r4", "e", previous="r3")
    assert client.engine.requests[-1].num_turns == 0
    assert {message.turn for message in client.prompt()} == {-1}
