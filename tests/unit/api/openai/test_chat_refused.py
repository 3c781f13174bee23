"""`/v1/chat/completions`: requests that are refused, with the field that is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from llmd.errors import Conflict, EngineLoading
from tests.support.answers import is_free
from tests.support.service import Service

PATH = "/v1/chat/completions"
USER = {"role": "user", "content": "hi"}
HI: dict[str, Any] = {"model": "default", "messages": [USER]}
F = {"type": "function", "function": {"name": "f"}}
JSON_FORMAT = {"type": "json_object"}
SCHEMA = {"type": "object"}


def _tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def _image(kind: str) -> dict[str, Any]:
    part = {"type": kind, kind: {"url": "data:,"}}
    return {"role": "user", "content": [{"type": "text", "text": "What is it?"}, part]}


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_field_is_refused_by_its_name(service: Service, stream: bool) -> None:
    """An unknown field is refused by its name, so that a misspelling is noticed."""
    result = service.ask("POST", PATH, HI | {"temprature": 0, "stream": stream})
    assert service.code(result) == (400, "invalid_field")
    error = result.json["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", "temprature")
    assert "temprature" in error["message"]
    assert service.engine.requests == []


@pytest.mark.parametrize("name", ["model", "messages"])
def test_a_missing_field_is_named(service: Service, name: str) -> None:
    """A required field that is missing or null is named."""
    for body in ({key: HI[key] for key in HI if key != name}, HI | {name: None}):
        result = service.ask("POST", PATH, body)
        assert service.code(result) == (400, "invalid_field")
        assert result.json["error"]["param"] == name


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        # Messages
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [USER, {"role": "user"}]}, "messages"),
        ({"messages": [{"role": "tool", "tool_call_id": "c"}]}, "messages"),
        ({"messages": [{"role": "king", "content": "hi"}]}, "messages[0].role"),
        ({"messages": [USER, {"role": "user", "content": 5}]}, "messages[1].content"),
        ({"messages": [_image("image_url")]}, "messages[0].content"),
        ({"messages": [USER, _image("input_audio")]}, "messages[1].content"),
        # Sampling
        ({"n": 2}, "n"),
        ({"n": 0}, "n"),
        ({"temperature": 2.01}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 1.01}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"min_p": -0.1}, "min_p"),
        ({"presence_penalty": 2.1}, "presence_penalty"),
        ({"frequency_penalty": -2.1}, "frequency_penalty"),
        ({"repeat_penalty": 0}, "repeat_penalty"),
        ({"repetition_penalty": 11}, "repetition_penalty"),
        ({"seed": 2**63}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"logit_bias": {"one": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"٣": 1}}, "logit_bias"),
        ({"logit_bias": {"": 1}}, "logit_bias"),
        ({"logit_bias": {"1000000000": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias[...]"),
        # Length and stop strings
        ({"max_tokens": -2}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -2}, "max_completion_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"stop": ""}, "stop"),
        ({"stop": ["END", ""]}, "stop[1]"),
        ({"stop": "x" * 129}, "stop"),
        ({"stop": ["x"] * 9}, "stop"),
        # Format
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
            "response_format.json_schema.schema",
        ),
        ({"response_format": JSON_FORMAT, "grammar": "root ::= [a-z]"}, "response_format"),
        ({"response_format": JSON_FORMAT, "json_schema": SCHEMA}, "response_format"),
        ({"json_schema": SCHEMA, "grammar": "root ::= [a-z]"}, "response_format"),
        ({"json_schema": True}, "json_schema"),
        ({"logprobs": 1}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": True}, "stream_options"),
        # Tools
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "custom", "function": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": [_tool("a b")]}, "tools[0].function.name"),
        ({"tools": [_tool("")]}, "tools[0].function.name"),
        ({"tools": [_tool("x" * 65)]}, "tools[0].function.name"),
        ({"tools": [F, F]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "any", "tools": []}, "tool_choice"),
        ({"tool_choice": F}, "tool_choice"),
        ({"tools": [F], "tool_choice": _tool("g")}, "tool_choice"),
        ({"tools": [F], "tool_choice": "often"}, "tool_choice"),
        ({"tools": [F], "tool_choice": "required", "response_format": JSON_FORMAT}, "tool_choice"),
        ({"tools": [F], "tool_choice": F, "grammar": "root ::= [a-z]"}, "tool_choice"),
        ({"chat_template_kwargs": "thinking"}, "chat_template_kwargs"),
    ],
)
def test_an_invalid_field_is_named(service: Service, fields: dict[str, Any], param: str) -> None:
    """An invalid field is a 400 that names the field, before the request queues or is computed."""
    result = service.ask("POST", PATH, HI | fields)
    assert service.code(result) == (400, "invalid_field")
    assert result.json["error"]["type"] == "invalid_request_error"
    assert result.json["error"]["param"] == param
    assert service.engine.requests == []
    assert is_free(service)


def test_a_profiles_template_cannot_require_tool_calls(service: Service) -> None:
    """With a profile's template, which shows no tools, a required tool call is refused."""
    service.put_profile("t", template="{input}")
    body = HI | {"model": "t", "tools": [F]}
    assert service.ask("POST", PATH, body).status_code == 200
    result = service.ask("POST", PATH, body | {"tool_choice": "required"})
    assert service.code(result) == (400, "invalid_field")
    assert result.json["error"]["param"] == "tool_choice"
    assert is_free(service)


@pytest.mark.parametrize("body", [b"", b"{", b"[1", b'{"model": NaN}'])
def test_a_body_that_is_no_json_is_refused(service: Service, body: bytes) -> None:
    """A body that is not valid JSON is refused by an error of the usual format."""
    assert service.code(service.ask("POST", PATH, body)) == (400, "malformed_body")


@pytest.mark.parametrize("body", ["[]", '"hi"', "5"])
def test_a_body_that_is_no_object_is_refused(service: Service, body: str) -> None:
    """A body that is JSON but not an object is refused."""
    assert service.code(service.ask("POST", PATH, body.encode())) == (400, "invalid_field")


@pytest.mark.parametrize("name", ["nobody", "tiny", "Default", "../tiny.gguf"])
def test_an_unknown_model_is_not_found(service: Service, name: str) -> None:
    """An unknown model is a 404 with OpenAI's code; no other model answers instead."""
    result = service.ask("POST", PATH, HI | {"model": name})
    assert service.code(result) == (404, "model_not_found")
    error = result.json["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", "model")
    assert service.engine.requests == []


@pytest.mark.parametrize("name", ["other.gguf", "of-other"])
def test_a_model_that_is_not_loaded_is_a_conflict(service: Service, name: str) -> None:
    """A file or profile whose model is not loaded is a 409, which clients are told not to retry."""
    service.add_model("other.gguf")
    service.put_profile("of-other", model="other.gguf")
    result = service.ask("POST", PATH, HI | {"model": name})
    assert service.code(result) == (409, "conflict")
    assert result.headers["x-should-retry"] == "false"
    error = result.json["error"]
    assert error["param"] == "model"
    assert "other.gguf" in error["message"]
    assert "tiny.gguf" in error["message"]
    assert service.engine.requests == []


def test_an_engine_that_is_not_ready_may_be_tried_again(service: Service) -> None:
    """While the model is being loaded, a 503 says in Retry-After when to try again."""
    service.engine.not_ready = EngineLoading("the model is being loaded", retry_after_s=7)
    result = service.ask("POST", PATH, HI)
    assert service.code(result) == (503, "model_loading")
    assert result.headers["retry-after"] == "7"
    assert "x-should-retry" not in result.headers


def test_a_stream_is_refused_by_its_status(service: Service) -> None:
    """A stream that is refused before it begins has an error status and a JSON body."""
    service.engine.submit_error = Conflict("another model is being loaded")
    result = service.ask("POST", PATH, HI | {"stream": True})
    assert service.code(result) == (409, "conflict")
    assert result.headers["content-type"] == "application/json"
    assert is_free(service)
