"""OpenAI's client uses the Responses API, where the server stores the conversation."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.responses import (
    Response,
    ResponseFunctionToolCall,
    ResponseInputParam,
    ResponseStreamEvent,
)

from tests.clients.sdk import FRANCE, MODEL, NUM_TOKENS, STORY, checked, connect, new_key
from tests.clients.tools import DESCRIPTIONS, LAMP, SCHEMAS, WEATHER, check_arguments
from tests.e2e.daemon import Daemon, Starter

pytestmark = pytest.mark.e2e

TOOLS: list[Any] = [
    {
        "type": "function",
        "name": name,
        "description": DESCRIPTIONS[name],
        "parameters": SCHEMAS[name],
        "strict": True,
    }
    for name in (WEATHER, LAMP)
]
FORCED: dict[str, Any] = {
    "tools": TOOLS,
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "max_output_tokens": 64,
}


def _ask(client: OpenAI, said: str | ResponseInputParam, **options: Any) -> Response:
    response = client.responses.create(model=MODEL, input=said, **options)
    assert isinstance(response, Response)
    return checked(response)


def _num_input(response: Response) -> int:
    assert response.usage
    return response.usage.input_tokens


def _events(client: OpenAI, said: str, **options: Any) -> list[ResponseStreamEvent]:
    """Return all events of a streamed response, each checked by the client's own types."""
    with client.responses.create(model=MODEL, input=said, stream=True, **options) as events:
        return [checked(event) for event in events]


def test_a_response_has_all_fields_that_clients_read(client: OpenAI) -> None:
    """A response has a message with one text, its usage, and the request's metadata."""
    response = _ask(client, FRANCE, metadata={"topic": "France"}, max_output_tokens=64)
    assert response.id.startswith("resp_")
    assert response.object == "response"
    assert response.status == "completed"
    assert response.model == MODEL
    assert response.metadata == {"topic": "France"}
    (item,) = response.output
    assert item.type == "message"
    assert item.role == "assistant"
    (part,) = item.content
    assert part.type == "output_text"
    assert part.text == response.output_text != ""
    usage = response.usage
    assert usage
    assert usage.output_tokens > 0
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens


def test_an_answer_that_was_cut_is_incomplete(client: OpenAI) -> None:
    """A response that was cut off is incomplete and says why, whole or as a stream."""
    response = _ask(client, STORY, max_output_tokens=3)
    assert response.status == "incomplete"
    assert response.incomplete_details
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage
    assert response.usage.output_tokens == 3
    last = _events(client, STORY, max_output_tokens=3)[-1]
    assert last.type == "response.incomplete"


def test_input_may_be_messages(client: OpenAI) -> None:
    """An input of one message equals a text, and instructions equal a system message."""
    plain = _ask(client, FRANCE)
    listed = _ask(client, [{"role": "user", "content": FRANCE}])
    parts = _ask(client, [{"role": "user", "content": [{"type": "input_text", "text": FRANCE}]}])
    assert plain.output_text == listed.output_text == parts.output_text
    system = "You are a pirate, and a very old one who tells of it."
    told = _ask(client, FRANCE, instructions=system)
    said = _ask(
        client, [{"role": "system", "content": system}, {"role": "user", "content": FRANCE}]
    )
    assert told.output_text == said.output_text
    assert _num_input(told) == _num_input(said) != _num_input(plain)
    assert told.instructions == system


def test_events_come_in_their_order(client: OpenAI) -> None:
    """Events open a message, stream its text, close it, and end with the whole response."""
    events = _events(client, FRANCE, max_output_tokens=64)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events if event.type != "response.output_text.delta"]
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    first, last = events[0], events[-1]
    assert first.type == "response.created"
    assert first.response.status == "in_progress"
    assert last.type == "response.completed"
    assert last.response.status == "completed"
    assert last.response.id == first.response.id
    assert "".join(deltas) == last.response.output_text != ""
    assert last.response.output_text == _ask(client, FRANCE, max_output_tokens=64).output_text
    (text,) = [event.text for event in events if event.type == "response.output_text.done"]
    assert text == last.response.output_text


def test_the_clients_own_reader_of_events_agrees(client: OpenAI) -> None:
    """The client's own reader of events builds the response that the server stores."""
    with client.responses.stream(model=MODEL, input=FRANCE, max_output_tokens=64) as events:
        final = events.until_done().get_final_response()
    kept = client.responses.retrieve(final.id)
    assert kept.output_text == final.output_text
    assert kept.status == "completed"


def test_a_response_is_continued_after_a_restart(start_daemon: Starter) -> None:
    """After a restart, the prompt of a continued response has the turns before it."""
    daemon = start_daemon()
    daemon.put_profile(MODEL, temperature=0, max_tokens=NUM_TOKENS)
    client = connect(daemon)
    first = _ask(client, "My dog is called Rex. Please remember that well.")
    assert daemon.stop() == 0
    daemon.start()
    question = "How is my dog called?"
    second = _ask(client, question, previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert _num_input(second) > _num_input(_ask(client, question)) + _num_input(first) // 2
    third = _ask(client, question, previous_response_id=second.id)
    assert _num_input(third) > _num_input(second)
    # The first can be continued another time, as if the second had not been.
    branch = _ask(client, question, previous_response_id=first.id)
    assert _num_input(branch) == _num_input(second)
    kept = checked(client.responses.retrieve(first.id))
    assert kept.output_text == first.output_text


def test_a_response_is_kept_until_it_is_deleted(client: OpenAI) -> None:
    """A deleted response can be neither shown nor continued."""
    response = _ask(client, FRANCE)
    kept = checked(client.responses.retrieve(response.id))
    assert kept == response
    client.responses.delete(response.id)
    _check_is_not_there(client, response.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.delete(response.id)


def test_a_response_can_be_left_unstored(client: OpenAI) -> None:
    """With `store` false a response cannot be found again."""
    response = _ask(client, FRANCE, store=False)
    assert response.output_text
    _check_is_not_there(client, response.id)


def test_a_response_belongs_to_its_key(client: OpenAI, daemon: Daemon) -> None:
    """Another key can neither find nor delete a response."""
    response = _ask(client, FRANCE)
    other = connect(daemon, new_key(daemon, "other"))
    _check_is_not_there(other, response.id)
    with pytest.raises(openai.NotFoundError):
        other.responses.delete(response.id)
    assert client.responses.retrieve(response.id).id == response.id


def _check_is_not_there(client: OpenAI, response_id: str) -> None:
    with pytest.raises(openai.NotFoundError) as shown:
        client.responses.retrieve(response_id)
    with pytest.raises(openai.NotFoundError) as continued:
        _ask(client, FRANCE, previous_response_id=response_id)
    assert shown.value.code == continued.value.code


def _call(response: Response) -> ResponseFunctionToolCall:
    """Return the response's only item, which must be a call with valid arguments."""
    (item,) = response.output
    assert item.type == "function_call"
    check_arguments(item.name, item.arguments)
    assert item.call_id
    return item


def test_a_function_is_called_and_its_result_read(client: OpenAI) -> None:
    """The result of a call can be sent alone, since the server has stored the call."""
    response = _ask(client, STORY, **FORCED)
    call = _call(response)
    named = _ask(client, STORY, **FORCED | {"tool_choice": {"type": "function", "name": LAMP}})
    assert _call(named).name == LAMP
    result: ResponseInputParam = [
        {"type": "function_call_output", "call_id": call.call_id, "output": '{"weather": "rain"}'}
    ]
    answer = _ask(client, result, previous_response_id=response.id)
    assert answer.output_text
    assert _num_input(answer) > _num_input(_ask(client, STORY))


def test_a_function_call_is_streamed(client: OpenAI) -> None:
    """A streamed call has the name and arguments of the whole answer."""
    events = _events(client, STORY, **FORCED)
    (added,) = [event for event in events if event.type == "response.output_item.added"]
    assert added.item.type == "function_call"
    deltas = [
        event.delta for event in events if event.type == "response.function_call_arguments.delta"
    ]
    (done,) = [event for event in events if event.type == "response.function_call_arguments.done"]
    expected = _call(_ask(client, STORY, **FORCED))
    assert added.item.name == expected.name
    assert "".join(deltas) == done.arguments == expected.arguments
    last = events[-1]
    assert last.type == "response.completed"
    assert _call(last.response).arguments == expected.arguments
