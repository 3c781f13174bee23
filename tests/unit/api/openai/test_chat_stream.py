"""`/v1/chat/completions`, streamed: the chunks that clients read."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

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

PATH = "/v1/chat/completions"
HI: dict[str, Any] = {
    "model": "default",
    "messages": [{"role": "user", "content": "hi"}],
    "stream": True,
}
ROLE = {"role": "assistant", "content": None}


def _data(raw: bytes) -> list[bytes]:
    """Return the data of all events of a stream."""
    *events, rest = raw.split(b"\n\n")
    assert rest == b""
    assert all(event.startswith(b"data: ") for event in events)
    return [event.removeprefix(b"data: ") for event in events]


def _chunks(raw: bytes) -> list[dict[str, Any]]:
    """Return the chunks of a stream that ended with `[DONE]`."""
    *chunks, last = _data(raw)
    assert last == b"[DONE]"
    return [msgspec.json.decode(chunk) for chunk in chunks]


def _stream(service: Service, **fields: Any) -> list[dict[str, Any]]:
    result = service.ask("POST", PATH, HI | fields)
    assert result.status_code == 200
    return _chunks(result.content)


def _deltas(service: Service, **fields: Any) -> list[dict[str, Any]]:
    """Return the deltas of the chunks between the first and the last."""
    first, *deltas, last = [chunk["choices"][0]["delta"] for chunk in _stream(service, **fields)]
    assert (first, last) == (ROLE, {})
    return deltas


def _script(service: Service, *events: Event) -> None:
    service.engine.script = begins(then=[*events, done()])


def test_a_stream_has_the_headers_of_a_stream(service: Service) -> None:
    """The headers of a stream keep caches from storing it and have no length."""
    result = service.ask("POST", PATH, HI)
    assert result.headers["content-type"].startswith("text/event-stream")
    assert result.headers["cache-control"] == "no-store"
    assert "content-length" not in result.headers
    assert is_free(service)


def test_chunks_are_the_role_the_text_and_the_finish_reason(service: Service) -> None:
    """Chunks have the role, the text, the finish reason, the same head and one choice each."""
    chunks = _stream(service)
    choices = [chunk.pop("choices") for chunk in chunks]
    head = chunks[0]
    assert chunks == [head] * 4
    assert head.pop("id").startswith("chatcmpl-")
    assert isinstance(head.pop("created"), int)
    assert head.pop("system_fingerprint").startswith("b")
    assert head == {"object": "chat.completion.chunk", "model": "default"}
    rest = {"index": 0, "logprobs": None}
    assert choices == [
        [rest | {"delta": ROLE, "finish_reason": None}],
        [rest | {"delta": {"content": "Hello"}, "finish_reason": None}],
        [rest | {"delta": {"content": " you"}, "finish_reason": None}],
        [rest | {"delta": {}, "finish_reason": "stop"}],
    ]


@pytest.mark.parametrize(
    ("reason", "shown"),
    [("stop", "stop"), ("length", "length"), ("tool_calls", "tool_calls"), ("cancelled", "stop")],
)
def test_the_last_chunk_has_the_finish_reason(
    service: Service, reason: FinishReason, shown: str
) -> None:
    """The last chunk has a finish reason that clients know."""
    service.engine.script = says("Hello", reason=reason)
    assert _stream(service)[-1]["choices"][0]["finish_reason"] == shown


def test_the_usage_is_sent_on_request(service: Service) -> None:
    """On request the usage comes in a last chunk without choices."""
    *chunks, last = _stream(service, stream_options={"include_usage": True})
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 11,
        "completion_tokens": 2,
        "total_tokens": 13,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    assert last["id"] == chunks[0]["id"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert all("usage" not in chunk for chunk in chunks)


@pytest.mark.parametrize(
    "options",
    [None, {}, {"include_usage": False}, {"include_usage": None}, {"include_obfuscation": False}],
)
def test_the_usage_is_not_sent_without_a_request(
    service: Service, options: dict[str, Any] | None
) -> None:
    """Without a request no chunk has the usage: some clients fail on a chunk without a choice."""
    chunks = _stream(service, stream_options=options)
    assert all(chunk["choices"] and "usage" not in chunk for chunk in chunks)


@pytest.mark.parametrize("value", [False, None])
def test_without_stream_the_answer_comes_whole(service: Service, value: object) -> None:
    """With `stream` false or null the answer comes whole."""
    result = service.ask("POST", PATH, HI | {"stream": value})
    assert result.json["object"] == "chat.completion"


def test_no_chunk_is_empty(service: Service) -> None:
    """A piece without text makes no chunk."""
    _script(service, Delta(0, ""), Delta(0, "Hello"), Delta(0, ""))
    assert _deltas(service) == [{"content": "Hello"}]


def test_reasoning_has_its_own_field(service: Service) -> None:
    """Reasoning comes in a field of its own."""
    _script(service, Reasoning(0, "Hm"), Reasoning(0, "."), Delta(0, "Hello"))
    assert _deltas(service) == [
        {"reasoning_content": "Hm"},
        {"reasoning_content": "."},
        {"content": "Hello"},
    ]


def test_calls_begin_with_their_names(service: Service) -> None:
    """A call's id, type and name come once, and its index with every piece of its arguments."""
    _script(
        service,
        Delta(0, "I look."),
        CallDelta(id=0, index=0, name="weather"),
        CallDelta(id=0, index=0, arguments='{"city": '),
        CallDelta(id=0, index=0, arguments='"Köln"}'),
        CallDelta(id=0, index=1, name="now", arguments="{}"),
    )
    text, *calls = _deltas(service)
    assert text == {"content": "I look."}
    assert all(delta.keys() == {"tool_calls"} for delta in calls)
    pieces = [piece for delta in calls for piece in delta["tool_calls"]]
    ids = [piece.pop("id") for piece in pieces if "id" in piece]
    assert len(set(ids)) == 2
    assert all(call_id.startswith("call_") for call_id in ids)
    assert pieces == [
        {"index": 0, "type": "function", "function": {"name": "weather", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"city": '}},
        {"index": 0, "function": {"arguments": '"Köln"}'}},
        {"index": 1, "type": "function", "function": {"name": "now", "arguments": "{}"}},
    ]


def test_log_probabilities_come_with_their_text(service: Service) -> None:
    """Log probabilities come with their text, or without content for a token that has no text."""
    chosen = [TokenLogprob(Candidate(token, b"x", -float(token)), []) for token in (1, 2, 3)]
    _script(service, Delta(0, "xx", chosen[:2]), Delta(0, "", chosen[2:]), Delta(0, "y"))
    choices = [chunk["choices"][0] for chunk in _stream(service, logprobs=True)]
    found = [
        (choice["delta"], [token["logprob"] for token in choice["logprobs"]["content"]])
        for choice in choices
        if choice["logprobs"] is not None
    ]
    assert found == [({"content": "xx"}, [-1.0, -2.0]), ({}, [-3.0]), ({"content": "y"}, [])]
    shown = choices[1]["logprobs"]["content"][0]
    assert shown == {"token": "x", "logprob": -1.0, "bytes": [120], "top_logprobs": []}


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (EngineDied("the worker ended"), "engine_died"),
        (Refused(id=0, message="it cannot be kept", param="grammar"), "invalid_field"),
    ],
)
def test_an_error_ends_the_stream(service: Service, event: Event, code: str) -> None:
    """An error is the last event of a stream: no `[DONE]` marks the answer as whole."""
    service.engine.script = begins("Hel", then=[event])
    result = service.ask("POST", PATH, HI)
    assert result.status_code == 200
    *chunks, last = [msgspec.json.decode(data) for data in _data(result.content)]
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [ROLE, {"content": "Hel"}]
    assert last["error"]["code"] == code
    assert last["message"] == last["error"]["message"]
    assert is_free(service)


def test_an_unexpected_exception_is_not_revealed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected exception ends the stream with an error that does not reveal its message."""

    def fail(*_args: object) -> object:
        raise RuntimeError("a secret")

    monkeypatch.setattr("llmd.api.openai.chat.finish_of", fail)
    raw = service.ask("POST", PATH, HI).content
    last = msgspec.json.decode(_data(raw)[-1])
    assert last["error"]["code"] == "internal_error"
    assert b"secret" not in raw
    assert is_free(service)


def test_a_retry_gets_the_same_stream(service: Service) -> None:
    """A retry gets the same chunks again, under the same id."""
    whole = service.ask("POST", PATH, HI, headers={"X-Stainless-Retry-Count": "0"})
    again = service.ask("POST", PATH, HI, headers={"X-Stainless-Retry-Count": "1"})
    assert again.content == whole.content
    assert len(_chunks(again.content)) == 4
    assert len(service.engine.requests) == 1
    assert is_free(service)
