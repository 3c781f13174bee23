"""`/v1/responses`, streamed: the events, their order, and the response that they build."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from falcon import testing

from llmd.engine.protocol import (
    CallDelta,
    Candidate,
    Delta,
    FinishReason,
    Reasoning,
    Refused,
    TokenLogprob,
)
from llmd.errors import EngineDied
from tests.support.answers import is_free
from tests.support.fake_engine import Event, begins, done, says
from tests.support.service import Service
from tests.support.sse import parse_events

PATH = "/v1/responses"
ASK: dict[str, Any] = {"model": "default", "input": "hi", "stream": True}
BEGIN = ["response.created", "response.in_progress"]
TEXT_BEGIN = ["response.output_item.added", "response.content_part.added"]
TEXT_END = [
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
]
LOGPROB = TokenLogprob(Candidate(1, b"a", -0.5), [])


def _events(service: Service, *script: Event, **fields: Any) -> list[dict[str, Any]]:
    """Return the events of an answer. Check that each has its name and its sequence number."""
    if script:
        service.engine.script = begins(then=list(script))
    result = service.ask("POST", PATH, ASK | fields)
    assert result.status_code == 200
    assert result.headers["content-type"].startswith("text/event-stream")
    events = parse_events(result.content)
    assert [data.pop("sequence_number") for _, data in events] == list(range(len(events)))
    assert all(data["type"] == name for name, data in events)
    assert is_free(service)
    return [data for _, data in events]


def _kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def _of(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]


def test_a_text_comes_in_pieces_within_its_item(service: Service) -> None:
    """The text comes in pieces within its item: all that is opened is closed, in OpenAI's order."""
    events = _events(service)
    assert _kinds(events) == [
        *BEGIN,
        *TEXT_BEGIN,
        *["response.output_text.delta"] * 2,
        *TEXT_END,
        "response.completed",
    ]
    message_id = events[2]["item"]["id"]
    place = {"item_id": message_id, "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "annotations": [], "logprobs": []}
    item = {"id": message_id, "type": "message", "role": "assistant"}
    assert [{**event, "type": ""} for event in events[2:-1]] == [
        {
            "type": "",
            "output_index": 0,
            "item": item | {"status": "in_progress", "content": []},
        },
        {"type": "", **place, "part": part | {"text": ""}},
        {"type": "", **place, "delta": "Hello", "logprobs": []},
        {"type": "", **place, "delta": " you", "logprobs": []},
        {"type": "", **place, "text": "Hello you", "logprobs": []},
        {"type": "", **place, "part": part | {"text": "Hello you"}},
        {
            "type": "",
            "output_index": 0,
            "item": item | {"status": "completed", "content": [part | {"text": "Hello you"}]},
        },
    ]


def test_the_response_comes_at_the_start_and_at_the_end(service: Service) -> None:
    """The response comes at the start without its outcome, and at the end as it is stored."""
    created, in_progress, *_, completed = _events(service, instructions="Be brief.")
    begun, ended = created["response"], completed["response"]
    assert in_progress["response"] == begun
    assert begun == ended | {"status": "in_progress", "output": [], "usage": None}
    assert ended["status"] == "completed"
    assert ended["instructions"] == "Be brief."
    assert ended["usage"]["total_tokens"] == 13
    assert service.ask("GET", f"{PATH}/{ended['id']}").json == ended


def test_a_streamed_response_is_the_same_as_a_whole_one(service: Service) -> None:
    """A streamed response equals a whole one, except for its id and its time."""
    ended = _events(service)[-1]["response"]
    whole = service.ask("POST", PATH, ASK | {"stream": False}).json
    text = msgspec.json.encode(whole).decode().replace(whole["id"], ended["id"])
    assert msgspec.json.decode(text) | {"created_at": 0} == ended | {"created_at": 0}


def test_reasoning_text_and_calls_come_one_item_after_another(service: Service) -> None:
    """Reasoning, text and calls come as items, each closed before the next one opens."""
    events = _events(
        service,
        Reasoning(0, "Is it "),
        Reasoning(0, "warm?"),
        Delta(0, "I look."),
        CallDelta(id=0, index=0, name="f"),
        CallDelta(id=0, index=0, arguments='{"city": '),
        CallDelta(id=0, index=0, arguments='"Köln"}'),
        CallDelta(id=0, index=1, name="g", arguments="{}"),
        done("tool_calls"),
    )
    call_begin, arguments = "response.output_item.added", "response.function_call_arguments"
    call_end = [f"{arguments}.done", "response.output_item.done"]
    assert _kinds(events) == [
        *BEGIN,
        *TEXT_BEGIN,
        *["response.reasoning_text.delta"] * 2,
        *["response.reasoning_text.done", *TEXT_END[1:]],
        *[*TEXT_BEGIN, "response.output_text.delta", *TEXT_END],
        *[call_begin, f"{arguments}.delta", f"{arguments}.delta", *call_end],
        *[call_begin, f"{arguments}.delta", *call_end],
        "response.completed",
    ]
    added, done_items = [_of(events, f"response.output_item.{what}") for what in ("added", "done")]
    output = events[-1]["response"]["output"]
    assert [event["item"] for event in done_items] == output
    for sent in (added, done_items):
        assert [event["output_index"] for event in sent] == [0, 1, 2, 3]
        assert [event["item"]["id"] for event in sent] == [item["id"] for item in output]
    call = added[2]["item"]
    assert (call["status"], call["name"], call["arguments"]) == ("in_progress", "f", "")
    deltas = [event for event in _of(events, f"{arguments}.delta") if event["output_index"] == 2]
    assert [event["delta"] for event in deltas] == ['{"city": ', '"Köln"}']
    first, second = _of(events, f"{arguments}.done")
    assert (first["item_id"], first["name"]) == (call["id"], "f")
    assert (first["arguments"], second["arguments"]) == ('{"city": "Köln"}', "{}")


def test_an_empty_answer_is_an_empty_message(service: Service) -> None:
    """An empty answer is an empty message, and a piece without text opens no item."""
    events = _events(service, Delta(0, ""), done())
    assert _kinds(events) == [*BEGIN, *TEXT_BEGIN, *TEXT_END, "response.completed"]
    assert events[4]["text"] == ""
    assert [events[6]["item"]] == events[-1]["response"]["output"]


@pytest.mark.parametrize(
    ("reason", "last"),
    [("stop", "completed"), ("length", "incomplete"), ("tool_calls", "completed")],
)
def test_the_streamed_items_are_those_of_the_response(
    service: Service, reason: FinishReason, last: str
) -> None:
    """The items that were streamed are those of the final response, even if it was cut off."""
    events = _events(service, Delta(0, "Hel"), done(reason))
    assert events[-1]["type"] == f"response.{last}"
    items = [event["item"] for event in _of(events, "response.output_item.done")]
    assert items == events[-1]["response"]["output"]


def test_a_call_that_was_cut_off_is_incomplete(service: Service) -> None:
    """A call that was cut off is incomplete, while the text before it is completed."""
    call = CallDelta(id=0, index=0, name="f", arguments='{"city": ')
    events = _events(service, Delta(0, "I look."), call, done("length"))
    items = [event["item"] for event in _of(events, "response.output_item.done")]
    assert [item["status"] for item in items] == ["completed", "incomplete"]
    assert items == events[-1]["response"]["output"]


def test_log_probabilities_come_with_their_text(service: Service) -> None:
    """Log probabilities come with the delta of their text if `include` names them."""
    include = ["message.output_text.logprobs"]
    events = _events(service, Delta(0, "a", [LOGPROB]), done(), include=include)
    [delta] = _of(events, "response.output_text.delta")
    shown = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
    assert delta["logprobs"] == [shown]
    [item] = events[-1]["response"]["output"]
    assert item["content"][0]["logprobs"] == [shown]


def test_log_probabilities_come_again_at_the_end_of_their_text(service: Service) -> None:
    """All log probabilities come again when the text is done, with those of tokens without text."""
    deltas = Delta(0, "a", [LOGPROB]), Delta(0, "", [LOGPROB])
    events = _events(service, *deltas, done(), include=["message.output_text.logprobs"])
    [item] = events[-1]["response"]["output"]
    logprobs = item["content"][0]["logprobs"]
    assert len(logprobs) == 2
    [text] = _of(events, "response.output_text.done")
    assert text["logprobs"] == logprobs
    [ended] = _of(events, "response.output_item.done")
    assert ended["item"] == item


@pytest.mark.parametrize(
    ("event", "code", "param"),
    [
        (EngineDied("the worker ended"), "engine_died", None),
        (Refused(id=0, message="it cannot be kept", param="text"), "invalid_field", "text"),
    ],
)
def test_an_error_is_the_last_event(
    service: Service, event: Event, code: str, param: str | None
) -> None:
    """An error is the last event of a stream, and nothing is stored."""
    events = _events(service, Delta(0, "Hel"), event)
    last = events[-1]
    assert _kinds(events) == [*BEGIN, *TEXT_BEGIN, "response.output_text.delta", "error"]
    assert (last["code"], last["param"]) == (code, param)
    assert last["message"]
    assert service.sessions.count() == 0


def test_a_response_that_cannot_be_stored_is_not_completed(service: Service) -> None:
    """A response that cannot be stored ends with an error instead of `response.completed`."""
    service.db.is_full = True
    assert _events(service)[-1]["code"] == "store_full"


def test_a_response_whose_client_disconnects_is_stored_as_cancelled(service: Service) -> None:
    """If the client disconnects, the text so far is stored as a cancelled response."""
    service.engine.script = begins("Hel")
    environ = testing.create_environ(
        PATH,
        method="POST",
        body=msgspec.json.encode(ASK),
        headers={"Authorization": f"Bearer {service.user}"},
    )
    body: Any = service.app(environ, testing.StartResponseMock())
    chunks = iter(body)
    [(_, created), _] = parse_events(next(chunks))
    assert b"response.output_text.delta" in next(chunks)
    body.close()
    shown = service.ask("GET", f"{PATH}/{created['response']['id']}").json
    assert shown["status"] == "cancelled"
    assert shown["output"][0]["content"][0]["text"] == "Hel"
    assert service.engine.cancelled == [service.engine.generations[0].id]
    assert is_free(service)


def test_a_retry_gets_the_same_events(service: Service) -> None:
    """A retry gets the same events byte by byte, and makes no second turn."""
    service.engine.script = says("Hello")
    streams = [
        service.ask("POST", PATH, ASK, headers={"X-Stainless-Retry-Count": count}).content
        for count in ("0", "1")
    ]
    assert streams[0] == streams[1]
    assert len(service.engine.requests) == 1
    assert service.sessions.count() == 1
