"""Requests as clients send them, and details of the responses on which some clients depend."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.sdk import FRANCE, MODEL, NUM_TOKENS, STORY
from tests.clients.tools import QUESTION, TOOLS
from tests.clients.wire import bearer, post, send
from tests.e2e.daemon import Daemon

pytestmark = pytest.mark.e2e

CHAT = "/v1/chat/completions"


def _question(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}


def _deltas(chunks: list[Any]) -> list[Any]:
    return [chunk["choices"][0]["delta"] for chunk in chunks]


def test_a_stream_is_lines_of_data_up_to_the_end_mark(daemon: Daemon) -> None:
    """A stream is lines of data up to the end mark, and all chunks are of the same kind."""
    chunks = post(daemon, CHAT, _question(STORY, stream=True)).chunks
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert all(isinstance(chunk["created"], int) for chunk in chunks)
    assert not any("error" in chunk for chunk in chunks)


def test_no_delta_is_an_empty_text(daemon: Daemon) -> None:
    """The first delta has a null content, the last has none, and the others have text."""
    first, *middle, last = _deltas(post(daemon, CHAT, _question(STORY, stream=True)).chunks)
    assert first == {"role": "assistant", "content": None}
    assert middle
    assert all(list(delta) == ["content"] and delta["content"] for delta in middle)
    assert last == {}


def test_usage_comes_only_on_request(daemon: Daemon) -> None:
    """Without a request no chunk has the usage, on which some clients fail."""
    chunks = post(daemon, CHAT, _question(STORY, stream=True)).chunks
    assert all(chunk.get("usage") is None and len(chunk["choices"]) == 1 for chunk in chunks)
    asked = _question(STORY, stream=True, stream_options={"include_usage": True})
    *chunks, last = post(daemon, CHAT, asked).chunks
    assert all(chunk.get("usage") is None and len(chunk["choices"]) == 1 for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == NUM_TOKENS
    assert "cached_tokens" in last["usage"]["prompt_tokens_details"]


def test_pieces_of_calls_have_only_what_is_new(daemon: Daemon) -> None:
    """Only the first piece of a call has its id and name; the index is in every piece."""
    fields = {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False}
    asked = _question(QUESTION, stream=True, max_tokens=64, **fields)
    first, *middle, last = _deltas(post(daemon, CHAT, asked).chunks)
    assert first == {"role": "assistant", "content": None}
    assert last == {}
    calls = [call for delta in middle for call in delta["tool_calls"]]
    assert len(calls) == len(middle)
    assert calls[0].keys() == {"index", "id", "type", "function"}
    assert calls[0]["function"].keys() == {"name", "arguments"}
    for call in calls[1:]:
        assert call.keys() == {"index", "function"}
        assert list(call["function"]) == ["arguments"]
        assert call["function"]["arguments"]


def test_events_of_a_response_are_named(daemon: Daemon) -> None:
    """Each event of a response has its name on a line of its own and in its data."""
    asked = {"model": MODEL, "input": FRANCE, "stream": True}
    answer = send(daemon, "POST", "/v1/responses", asked)
    assert answer.status == 200
    blocks = answer.content.decode().removesuffix("\n\n").split("\n\n")
    events = [block.split("\n") for block in blocks if not block.startswith(":")]
    for name, data in events:
        kind = name.removeprefix("event: ")
        assert kind.startswith("response.")
        assert data.startswith("data: ")
        assert f'"type":"{kind}"' in data.replace(" ", "")
    assert events[0][0] == "event: response.created"


def test_home_assistant_can_be_set_up(daemon: Daemon) -> None:
    """Home Assistant's set-up works: it lists models and sends a chat with a dummy tool."""
    headers = {
        **bearer(daemon.key),
        "accept": "application/json",
        "user-agent": "AsyncOpenAI/Python 2.21.0",
        "x-stainless-lang": "python",
        "x-stainless-async": "async:asyncio",
        "x-stainless-retry-count": "0",
        "x-stainless-read-timeout": "600",
    }
    listed = send(daemon, "GET", "/v1/models", headers=headers | {"x-stainless-read-timeout": "10"})
    assert listed.status == 200
    assert MODEL in {model["id"] for model in listed.body["data"]}
    tool = {"name": "dummy", "description": "Does nothing.", "parameters": _NOTHING}
    asked = {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "You help in a house."},
            {"role": "user", "content": FRANCE},
        ],
        "tools": [{"type": "function", "function": tool}],
        "max_tokens": 3,
    }
    headers |= {"content-type": "application/json"}
    whole = post(daemon, CHAT, asked | {"stream": False}, headers).body
    (choice,) = whole["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["finish_reason"] in {"length", "stop", "tool_calls"}
    assert whole["usage"]["completion_tokens"] <= 3
    chunks = post(daemon, CHAT, asked | {"stream": True}, headers).chunks
    assert chunks[-1]["choices"][0]["finish_reason"] == choice["finish_reason"]
    talk = {"user": "01JD", "top_p": 1.0, "temperature": 1.0}
    assert post(daemon, CHAT, asked | talk | {"stream": True}, headers).chunks


_NOTHING = {"type": "object", "properties": {}}


def test_the_list_of_models_has_no_nulls(daemon: Daemon) -> None:
    """Each model has the four fields of its kind, and no null that a client would show."""
    listed = send(daemon, "GET", "/v1/models").body
    assert listed["object"] == "list"
    for model in listed["data"]:
        assert {"id", "object", "created", "owned_by"} <= model.keys()
        assert None not in model.values()
        assert model["object"] == "model"


def test_the_bare_list_of_models_serves_both_kinds_of_clients(daemon: Daemon) -> None:
    """`/models` has the names of files and OpenAI's objects in one body."""
    listed = send(daemon, "GET", "/models").body
    assert listed["models"] == ["a.gguf"]
    assert listed["object"] == "list"
    assert "a.gguf" in {model["id"] for model in listed["data"]}


def test_routes_answer_without_their_version(daemon: Daemon) -> None:
    """Routes also answer without `/v1`, and with a trailing slash."""
    asked = _question(FRANCE)
    bare = post(daemon, "/chat/completions", asked).body
    assert bare["choices"] == post(daemon, CHAT, asked).body["choices"]
    assert post(daemon, f"{CHAT}/", asked).body["choices"] == bare["choices"]
    prompt = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 2}
    assert post(daemon, "/completions", prompt).body["object"] == "text_completion"
    vectors = {"model": MODEL, "input": FRANCE}
    assert post(daemon, "/embeddings", vectors).body["object"] == "list"


def test_a_key_may_come_in_any_of_its_headers(daemon: Daemon) -> None:
    """A key is accepted as Bearer, bare, and in the headers x-api-key and api-key."""
    key = daemon.key
    for headers in (bearer(key), {"x-api-key": key}, {"api-key": key}, {"Authorization": key}):
        assert send(daemon, "GET", "/v1/models", headers=headers).status == 200
    refused = send(daemon, "GET", "/v1/models", headers={})
    assert refused.status == 401
    assert refused.body["error"].keys() >= {"message", "type", "param", "code"}
    assert refused.body["error"]["code"] == "invalid_api_key"
    assert refused.headers["x-request-id"]


def test_a_body_from_curl_is_read(daemon: Daemon) -> None:
    """A body is read as JSON although `curl -d` declares it as a form."""
    headers = {
        **bearer(daemon.key),
        "content-type": "application/x-www-form-urlencoded",
        "accept": "*/*",
    }
    assert post(daemon, CHAT, _question(FRANCE), headers).body["choices"]


def test_texts_become_tokens_and_texts_again(daemon: Daemon) -> None:
    """`/detokenize` restores the text that `/tokenize` split, and so do the pieces."""
    text = "The sea is wide – and blue."
    tokens = post(daemon, "/tokenize", {"content": text}).body["tokens"]
    assert all(isinstance(token, int) for token in tokens)
    assert post(daemon, "/detokenize", {"tokens": tokens}).body["content"] == text
    pieces = post(daemon, "/tokenize", {"content": text, "with_pieces": True}).body["tokens"]
    assert [piece["id"] for piece in pieces] == tokens
    read = b"".join(
        piece["piece"].encode() if isinstance(piece["piece"], str) else bytes(piece["piece"])
        for piece in pieces
    )
    assert read.decode() == text


def test_the_prompt_of_a_chat_can_be_seen(daemon: Daemon) -> None:
    """`/apply-template` renders all messages with the model's own template."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": FRANCE}]
    prompt = post(daemon, "/apply-template", {"messages": messages}).body["prompt"]
    assert prompt.index("Be brief.") < prompt.index(FRANCE)
