"""`/v1/responses`: responses are created, shown, continued and deleted."""

from __future__ import annotations

from typing import Any

import pytest

from llmd.engine.protocol import (
    CallDelta,
    Candidate,
    ChatPrompt,
    Delta,
    Reasoning,
    TokenLogprob,
)
from tests.support.answers import is_free
from tests.support.fake_engine import Event, begins, done, says
from tests.support.service import Service

PATH = "/v1/responses"
ASK: dict[str, Any] = {"model": "default", "input": "hi"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
F = {"type": "function", "name": "f", "description": "Does it.", "parameters": SCHEMA}
G = {"type": "function", "name": "g"}


def _create(service: Service, **fields: Any) -> Any:
    result = service.ask("POST", PATH, ASK | fields)
    assert result.status_code == 200, result.text
    return result.json


def _script(service: Service, *events: Event) -> None:
    service.engine.script = begins(then=[*events, done()])


def test_a_response_has_every_field_of_the_contract(service: Service) -> None:
    """A response has all fields that OpenAI's clients read, and no others."""
    reply = _create(service)
    response_id = reply.pop("id")
    assert response_id.startswith("resp_")
    assert isinstance(reply.pop("created_at"), int)
    text = {"type": "output_text", "text": "Hello you", "annotations": [], "logprobs": []}
    assert reply == {
        "object": "response",
        "status": "completed",
        "model": "default",
        "output": [
            {
                "id": f"msg_{response_id}",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [text],
            }
        ],
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "conversation": None,
        "store": True,
        "temperature": None,
        "top_p": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "truncation": "disabled",
        "user": None,
        "usage": {
            "input_tokens": 11,
            "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
            "output_tokens": 2,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 13,
        },
    }
    assert is_free(service)


def test_a_response_repeats_the_request(service: Service) -> None:
    """A response repeats the fields of its request as the client wrote them."""
    given: dict[str, Any] = {
        "instructions": "Be brief.",
        "max_output_tokens": 7,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "store": False,
        "temperature": 0.5,
        "top_p": 0.25,
        "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}},
        "tool_choice": {"type": "function", "name": "g"},
        "tools": [F, G],
        "truncation": "auto",
        "user": "ann",
    }
    free = {name: given[name] for name in given if name not in {"tools", "tool_choice"}}
    bound = {name: given[name] for name in given if name != "text"}
    for fields in (free, bound):
        reply = _create(service, **fields)
        assert {name: reply[name] for name in fields} == fields
    assert _create(service, conversation={"id": "rome"})["conversation"] == {"id": "rome"}
    assert _create(service, conversation="rome")["conversation"] == {"id": "rome"}
    nothing = dict.fromkeys([*given, "conversation", "previous_response_id", "stream"])
    assert _create(service, **nothing)["tools"] == []


@pytest.mark.parametrize(
    "fields", [{}, {"metadata": {"a": "é"}, "tools": [F], "instructions": "Be brief.", "user": "a"}]
)
def test_a_response_is_shown_as_it_was_answered(service: Service, fields: dict[str, Any]) -> None:
    """A stored response is shown as it was first sent, and only to its own key."""
    made = _create(service, **fields)
    path = f"{PATH}/{made['id']}"
    shown = service.ask("GET", path)
    assert shown.headers["content-type"] == "application/json"
    assert shown.json == made
    assert service.code(service.ask("GET", path, key=service.other)) == (404, "response_not_found")


def test_reasoning_text_and_calls_are_items(service: Service) -> None:
    """Reasoning, text and calls are items with ids of their own; a call also has a call id."""
    _script(
        service,
        Reasoning(0, "Is it "),
        Reasoning(0, "warm?"),
        Delta(0, "I look."),
        CallDelta(id=0, index=0, name="f"),
        CallDelta(id=0, index=0, arguments='{"city": "Köln"}'),
        CallDelta(id=0, index=1, name="g", arguments="{}"),
    )
    output = _create(service)["output"]
    ids = [item.pop("id") for item in output]
    call_ids = [item.pop("call_id") for item in output if "call_id" in item]
    assert len(set(ids)) == 4
    assert len(set(call_ids)) == 2
    text = {"type": "output_text", "text": "I look.", "annotations": [], "logprobs": []}
    call = {"type": "function_call", "status": "completed"}
    assert output == [
        {
            "type": "reasoning",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "Is it warm?"}],
        },
        {"type": "message", "role": "assistant", "status": "completed", "content": [text]},
        call | {"name": "f", "arguments": '{"city": "Köln"}'},
        call | {"name": "g", "arguments": "{}"},
    ]


def test_calls_alone_come_without_a_message(service: Service) -> None:
    """Calls alone come without a message; an empty answer is an empty message."""
    _script(service, CallDelta(id=0, index=0, name="f", arguments="{}"))
    assert [item["type"] for item in _create(service)["output"]] == ["function_call"]
    _script(service)
    [item] = _create(service)["output"]
    assert item["content"][0]["text"] == ""


def test_a_response_that_was_cut_off_is_incomplete(service: Service) -> None:
    """A response that reached its token limit is incomplete, and so is its item."""
    service.engine.script = says("Hel", reason="length")
    reply = _create(service, max_output_tokens=1)
    assert reply["status"] == "incomplete"
    assert reply["incomplete_details"] == {"reason": "max_output_tokens"}
    assert reply["output"][0]["status"] == "incomplete"


def test_log_probabilities_come_when_they_are_included(service: Service) -> None:
    """Log probabilities come if `include` names them; `top_logprobs` sets how many others."""
    chosen = Candidate(1, b"a", -0.5)
    _script(service, Delta(0, "a", [TokenLogprob(chosen, [chosen])]))
    include = {"include": ["message.output_text.logprobs", "reasoning.encrypted_content"]}
    reply = _create(service, top_logprobs=3, **include)
    assert service.engine.requests[-1].num_logprobs == 3
    shown = {"token": "a", "logprob": -0.5, "bytes": [97]}
    [logprob] = reply["output"][0]["content"][0]["logprobs"]
    assert logprob == shown | {"top_logprobs": [shown]}
    for fields, number in ((include, 0), ({"top_logprobs": 3}, None)):
        _create(service, **fields)
        assert service.engine.requests[-1].num_logprobs == number


# Continued, deleted, repeated


def _texts(service: Service) -> list[str]:
    """Return the texts of the messages in the last prompt."""
    prompt = service.engine.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    return [message.content for message in prompt.messages]


def _sessions(service: Service) -> dict[str, int]:
    """Return the number of turns of each session of the user."""
    sessions = service.ask("GET", "/sessions").json["sessions"]
    return {session["id"]: session["num_turns"] for session in sessions}


def test_a_response_is_continued_by_its_id_or_its_conversation(service: Service) -> None:
    """A response is continued by its id or by its conversation, with all messages before."""
    first = _create(service, input="a")
    second = _create(service, input="b", previous_response_id=first["id"])
    assert second["previous_response_id"] == first["id"]
    assert _texts(service) == ["a", "Hello you", "b"]
    _create(service, input="c", conversation={"id": first["id"]})
    assert _texts(service) == ["a", "Hello you", "b", "Hello you", "c"]
    assert _sessions(service) == {first["id"]: 3}
    answer = service.ask("POST", "/answer", {"prompt": "d", "session_id": first["id"]}).json
    assert answer["turns_in_prompt"] == 3


def test_old_turns_are_left_out_only_with_truncation(service: Service) -> None:
    """Only with `truncation` set to `auto` may the engine leave out the oldest turns."""
    first = _create(service)["id"]
    for truncation, number in ((None, 0), ("disabled", 0), ("auto", 1)):
        _create(service, previous_response_id=first, store=False, truncation=truncation)
        assert service.engine.requests[-1].num_turns == number


def test_an_unknown_response_is_not_found(service: Service) -> None:
    """A response that is another key's, was not stored or never existed is a 404."""
    others = service.ask("POST", PATH, ASK, key=service.other).json["id"]
    unstored = _create(service, store=False)["id"]
    for response in (others, unstored, "resp_nowhere"):
        result = service.ask("POST", PATH, ASK | {"previous_response_id": response})
        assert service.code(result) == (404, "response_not_found")
        assert service.code(service.ask("GET", f"{PATH}/{response}")) == (404, "response_not_found")
    assert _sessions(service) == {}


def test_a_deleted_response_is_gone(service: Service) -> None:
    """A deleted response takes its turn along if that is the last one, and its session if empty."""
    ids = [_create(service, conversation="rome")["id"] for _ in range(3)]
    for response, left in ((ids[1], {"rome": 3}), (ids[2], {"rome": 2})):
        result = service.ask("DELETE", f"{PATH}/{response}")
        assert result.json == {"id": response, "object": "response", "deleted": True}
        assert _sessions(service) == left
        for method in ("GET", "DELETE"):
            result = service.ask(method, f"{PATH}/{response}")
            assert service.code(result) == (404, "response_not_found")
    assert service.engine.forgotten == [(service.user_key.id, "rome")] * 2
    only = _create(service)["id"]
    service.ask("DELETE", f"{PATH}/{only}")
    assert _sessions(service) == {"rome": 2}


def test_nobody_deletes_a_response_of_another_key(service: Service) -> None:
    """Another key, even an admin's, cannot delete a response."""
    path = f"{PATH}/{_create(service)['id']}"
    for key in (service.other, service.admin):
        result = service.ask("DELETE", path, key=key)
        assert service.code(result) == (404, "response_not_found")
    assert service.ask("GET", path).status_code == 200


def test_a_deleted_session_takes_its_responses_along(service: Service) -> None:
    """The responses of a deleted session are deleted, too."""
    ids = [_create(service, conversation="rome")["id"] for _ in range(2)]
    assert service.ask("DELETE", "/sessions/rome").status_code == 204
    for response in ids:
        assert service.code(service.ask("GET", f"{PATH}/{response}")) == (404, "response_not_found")


def test_a_response_that_cannot_be_stored_is_an_error(service: Service) -> None:
    """With a full disk a response is a 507, unless it is not to be stored."""
    service.db.is_full = True
    assert service.code(service.ask("POST", PATH, ASK)) == (507, "store_full")
    assert _create(service, store=False)["status"] == "completed"
    assert is_free(service)


def test_a_retry_gets_the_same_response(service: Service) -> None:
    """A retry gets the same response, which is stored as one turn."""
    replies = [
        service.ask("POST", PATH, ASK, headers={"Idempotency-Key": "k"}).json for _ in range(2)
    ]
    assert replies[0] == replies[1]
    assert _sessions(service) == {replies[0]["id"]: 1}
    assert service.ask("GET", f"{PATH}/{replies[0]['id']}").json == replies[0]
