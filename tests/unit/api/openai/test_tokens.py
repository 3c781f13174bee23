"""`/tokenize`, `/detokenize` and `/apply-template`."""

from __future__ import annotations

from typing import Any

import pytest

from llmd.engine.protocol import (
    Call,
    ChatPrompt,
    Detokenize,
    Message,
    Query,
    Refused,
    Render,
    Text,
    Tokenize,
    Tokens,
    Tool,
    Tools,
)
from llmd.errors import EngineDied, EngineLoading
from tests.support.fake_engine import Event, silent
from tests.support.service import Service

USER = {"role": "user", "content": "hi"}
BODIES: dict[str, dict[str, Any]] = {
    "/tokenize": {"content": "hi"},
    "/detokenize": {"tokens": [1]},
    "/apply-template": {"messages": [USER]},
}


def _reply(service: Service, *events: Event) -> list[Query]:
    """Answer every query with these events; return the list in which queries are recorded."""
    service.engine.reply = lambda _query: list(events)
    return service.engine.queries


def _ask(service: Service, path: str, body: object) -> Any:
    result = service.ask("POST", path, body)
    assert result.status_code == 200, result.text
    return result.json


def test_a_text_is_split_into_tokens(service: Service) -> None:
    """By default special tokens are parsed, and none is put before the text."""
    queries = _reply(service, Tokens(id=0, tokens=[7, 300], pieces=[b"h", b"i"]))
    assert _ask(service, "/tokenize", {"content": "hi"}) == {"tokens": [7, 300]}
    options = {"add_special": True, "parse_special": False, "model": "default"}
    _ask(service, "/tokenize", {"content": ""} | options)
    assert queries == [
        Tokenize(id=0, text="hi", with_special=False, parse_special=True),
        Tokenize(id=0, text="", with_special=True, parse_special=False),
    ]


def test_a_token_comes_with_its_text_or_its_bytes(service: Service) -> None:
    """A token that is only part of a character comes with its bytes instead of its text."""
    pieces = [b"h", "é".encode(), b"\xc3", b""]
    _reply(service, Tokens(id=0, tokens=[1, 2, 3, 4], pieces=pieces))
    assert _ask(service, "/tokenize", {"content": "hé", "with_pieces": True}) == {
        "tokens": [
            {"id": 1, "piece": "h"},
            {"id": 2, "piece": "é"},
            {"id": 3, "piece": [0xC3]},
            {"id": 4, "piece": ""},
        ]
    }


def test_tokens_are_joined_into_a_text(service: Service) -> None:
    """Tokens are joined into a text; an empty list is accepted."""
    queries = _reply(service, Text(0, "hé"))
    assert _ask(service, "/detokenize", {"tokens": [1, 2]}) == {"content": "hé"}
    _ask(service, "/detokenize", {"tokens": [], "model": "default"})
    assert queries == [Detokenize(0, [1, 2]), Detokenize(0, [])]


def test_the_prompt_of_a_conversation_is_shown(service: Service) -> None:
    """The prompt is rendered from the fields of a chat, with tools and template variables."""
    queries = _reply(service, Text(0, "<s>hi"))
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "30 °C"},
    ]
    body = {
        "messages": messages,
        "tools": [tool],
        "tool_choice": "required",
        "chat_template_kwargs": {"a": 1},
        "model": "default",
        "reasoning_format": "none",
    }
    assert _ask(service, "/apply-template", body) == {"prompt": "<s>hi"}
    assert _ask(service, "/apply-template", {"messages": [USER]}) == {"prompt": "<s>hi"}
    prompt = ChatPrompt(
        [
            Message(role="system", content="Be brief."),
            Message(role="assistant", content="", calls=[Call(name="f", arguments="{}", id="c")]),
            Message(role="tool", content="30 °C", call_id="c", name="f"),
        ],
        Tools(tools=[Tool(name="f", parameters='{"type":"object"}')], required=True),
        '{"a":1}',
    )
    assert queries == [
        Render(0, prompt),
        Render(0, ChatPrompt([Message(role="user", content="hi")])),
    ]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "content"),
        ("/tokenize", {"content": None}, "content"),
        ("/tokenize", {"content": ["hi"]}, "content"),
        ("/tokenize", {"content": "hi", "with_peaces": True}, "with_peaces"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": "hi"}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {"tokens": [1, 2**31]}, "tokens[1]"),
        ("/detokenize", {"tokens": [1.5]}, "tokens[0]"),
        ("/apply-template", {"messages": []}, "messages"),
        ("/apply-template", {"messages": [USER], "tool_choice": "required"}, "tool_choice"),
        ("/apply-template", {"messages": [{"role": "user"}]}, "messages"),
        ("/apply-template", {"messages": [USER], "temperature": 1}, "temperature"),
    ],
)
def test_an_invalid_field_is_named(
    service: Service, path: str, body: dict[str, Any], param: str
) -> None:
    """An invalid field is a 400 that names the field, before the engine is asked."""
    result = service.ask("POST", path, body)
    assert service.code(result) == (400, "invalid_field")
    assert result.json["error"]["param"] == param
    assert service.engine.queries == []


@pytest.mark.parametrize("path", BODIES)
def test_a_refusal_of_the_worker_is_a_400(service: Service, path: str) -> None:
    """A query that the worker refuses is a 400 with the worker's message."""
    _reply(service, Refused(id=0, message="there is no such token", param="tokens"))
    result = service.ask("POST", path, BODIES[path])
    assert service.code(result) == (400, "invalid_field")
    error = result.json["error"]
    assert (error["param"], error["message"]) == ("tokens", "there is no such token")


@pytest.mark.parametrize("path", BODIES)
def test_without_a_model_a_query_is_a_503(service: Service, path: str) -> None:
    """A query fails with a 503 if the worker dies or the model is still being loaded."""
    _reply(service, EngineDied("the worker ended"))
    assert service.code(service.ask("POST", path, BODIES[path])) == (503, "engine_died")
    service.engine.submit_error = EngineLoading("the model is being loaded")
    assert service.code(service.ask("POST", path, BODIES[path])) == (503, "model_loading")


@pytest.mark.parametrize("path", BODIES)
def test_a_query_ends_when_its_client_disconnects(
    service: Service, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A query whose client has disconnected stops waiting, which frees its thread."""
    monkeypatch.setattr("llmd.chat.queries.POLL_S", 0.001)
    service.engine.reply = silent
    gone = {"waitress.client_disconnected": lambda: True}
    assert service.ask("POST", path, BODIES[path], extras=gone).status_code == 499


@pytest.mark.parametrize("path", BODIES)
def test_a_key_is_needed(service: Service, path: str) -> None:
    """The routes need a key."""
    assert service.ask("POST", path, BODIES[path], key="").status_code == 401
    assert service.engine.queries == []
