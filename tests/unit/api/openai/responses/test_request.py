"""`/v1/responses`: how a body becomes a request to the engine, and bodies that are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmd.engine.engine import Request
from llmd.engine.protocol import (
    Call,
    CallDelta,
    ChatPrompt,
    Delta,
    JsonSchema,
    Message,
    Reasoning,
    Tool,
    Tools,
)
from tests.support.answers import is_free
from tests.support.fake_engine import begins, done
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


def _asked(service: Service, **fields: Any) -> Request:
    """Return the request that reaches the engine for a body with these fields."""
    _create(service, **fields)
    return service.engine.requests[-1]


def _chat(service: Service, **fields: Any) -> ChatPrompt:
    prompt = _asked(service, **fields).prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt


def test_every_kind_of_item_reaches_the_model(service: Service) -> None:
    """Calls join the message before them, results get names, and empty reasoning is ignored."""
    items = [
        {"role": "developer", "content": "Be brief."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Warm?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "I look.", "annotations": []}],
        },
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "30 °C"},
        {
            "type": "function_call_output",
            "call_id": "c2",
            "output": [{"type": "input_text", "text": "noon"}],
        },
        {"type": "function_call", "call_id": "c3", "name": "f"},
    ]
    assert _chat(service, input=items).messages == [
        Message(role="system", content="Be brief."),
        Message(role="user", content="Warm?"),
        Message(
            role="assistant",
            content="I look.",
            calls=[
                Call(name="f", arguments='{"a": 1}', id="c1"),
                Call(name="g", arguments="{}", id="c2"),
            ],
        ),
        Message(role="tool", content="30 °C", call_id="c1", name="f"),
        Message(role="tool", content="noon", call_id="c2", name="g"),
        Message(role="assistant", content="", calls=[Call(name="f", arguments="{}", id="c3")]),
    ]


def test_the_output_can_be_sent_back_as_input(service: Service) -> None:
    """The output of a response can be sent back as input, as clients that keep conversations do."""
    call_piece = CallDelta(id=0, index=0, name="f", arguments="{}")
    service.engine.script = begins(
        then=[Reasoning(0, "Hm."), Delta(0, "I look."), call_piece, done("tool_calls")]
    )
    output = _create(service, store=False)["output"]
    [call] = [item for item in output if item["type"] == "function_call"]
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "30 °C"}
    user = {"role": "user", "content": "Warm?"}
    messages = _chat(service, input=[user, *output, result]).messages
    assert [message.role for message in messages] == ["user", "assistant", "tool"]
    assert (messages[1].content, messages[1].calls[0].id) == ("I look.", call["call_id"])
    assert messages[1].reasoning == "Hm."
    assert messages[2].name == "f"


def test_reasoning_items_are_the_thoughts_of_what_follows(service: Service) -> None:
    """A thought belongs to the message or call behind it, and to one of its own before a user."""
    items = [
        {"role": "user", "content": "Warm?"},
        {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "Short."}],
            "content": [
                {"type": "reasoning_text", "text": "One."},
                {"type": "reasoning_text", "text": "Two."},
            ],
        },
        {"role": "assistant", "content": "I look."},
        {"type": "function_call", "call_id": "c1", "name": "f"},
        {"type": "function_call_output", "call_id": "c1", "output": "30 °C"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Short."}]},
        {"type": "function_call", "call_id": "c2", "name": "f"},
        {"type": "function_call_output", "call_id": "c2", "output": "31 °C"},
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Cut"}]},
        {"role": "user", "content": "And?"},
    ]
    messages = _chat(service, input=items).messages
    assert [(one.role, one.content, one.reasoning, len(one.calls)) for one in messages] == [
        ("user", "Warm?", "", 0),
        ("assistant", "I look.", "One.\nTwo.", 1),
        ("tool", "30 °C", "", 0),
        ("assistant", "", "Short.", 1),
        ("tool", "31 °C", "", 0),
        ("assistant", "", "Cut", 0),
        ("user", "And?", "", 0),
    ]


def test_the_effort_of_reasoning_is_a_template_variable(service: Service) -> None:
    """The effort of `reasoning` reaches the template."""
    assert json.loads(_chat(service, reasoning={"effort": "high"}).variables) == {
        "reasoning_effort": "high"
    }


def test_sampling_reaches_the_engine(service: Service) -> None:
    """Sampling fields reach the engine; the profile sets those that are left out."""
    service.put_profile("p", top_k=7, max_tokens=77)
    request = _asked(service, model="p", temperature=0, top_p=0.5, max_output_tokens=3)
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0, 0.5, 7)
    assert request.max_tokens == 3
    assert _asked(service, model="p").max_tokens == 77


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        (None, None),
        ({}, None),
        ({"format": {"type": "text"}, "verbosity": "low"}, None),
        ({"format": {"type": "json_object"}}, {"type": "object"}),
        ({"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}, SCHEMA),
    ],
)
def test_the_answer_is_constrained_to_the_requested_format(
    service: Service, text: object, schema: object
) -> None:
    """The answer is constrained to the format in the field `text`."""
    constraint = _asked(service, text=text).constraint
    if schema is None:
        assert constraint is None
    else:
        assert isinstance(constraint, JsonSchema)
        assert json.loads(constraint.schema) == schema


@pytest.mark.parametrize(
    ("choice", "tools"),
    [
        (None, (["f", "g"], False, True)),
        ("auto", (["f", "g"], False, True)),
        ("required", (["f", "g"], True, True)),
        ({"type": "function", "name": "g"}, (["g"], True, False)),
        ("none", None),
    ],
)
def test_the_tool_choice_says_which_tools_are_called(
    service: Service, choice: object, tools: tuple[list[str], bool, bool] | None
) -> None:
    """The tool choice says which tools may or must be called."""
    sent = _chat(service, tools=[F, G], tool_choice=choice).tools
    found = sent and ([tool.name for tool in sent.tools], sent.required, sent.parallel)
    assert found == tools


def test_tools_are_described_as_the_client_describes_them(service: Service) -> None:
    """A tool's description and schema are passed on unchanged."""
    sent = _chat(service, tools=[F], parallel_tool_calls=False).tools
    assert sent is not None
    [tool] = sent.tools
    schema = tool.parameters
    assert sent == Tools(
        tools=[Tool(name="f", description="Does it.", parameters=schema)], parallel=False
    )
    assert json.loads(schema) == SCHEMA


def test_fields_without_effect_are_ignored(service: Service) -> None:
    """Fields that clients send and that have no effect are ignored."""
    hi = ChatPrompt([Message(role="user", content="hi")])
    ignored: dict[str, Any] = {
        "reasoning": {"summary": "auto"},
        "max_tool_calls": 3,
        "service_tier": "auto",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "stream_options": {"include_obfuscation": False},
        "background": False,
    }
    assert _chat(service, **ignored) == hi
    assert _chat(service, **dict.fromkeys(ignored)) == hi


# Refusals


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"type": "reasoning"}]}, "input"),
        ({"input": [{"role": "user"}]}, "input[0]"),
        ({"input": [{"content": "hi"}]}, "input[0]"),
        ({"input": [{"role": "tool", "content": "hi"}]}, "input[0].role"),
        ({"input": [{"type": "computer_call"}]}, "input[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content",
        ),
        (
            {"input": [{"type": "function_call_output", "output": [{"type": "input_file"}]}]},
            "input[0].output",
        ),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search_preview"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name"),
        ({"tools": [F, F]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [F], "tool_choice": {"type": "function", "name": "h"}}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text"),
        ({"truncation": "often"}, "truncation"),
        ({"metadata": {"a": 1}}, "metadata[...]"),
        ({"messages": []}, "messages"),
        ({"previous_response_id": "r", "conversation": "c"}, "previous_response_id"),
        ({"conversation": "a b"}, "conversation"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_invalid_field_is_named(
    service: Service, fields: dict[str, Any], param: str, stream: bool
) -> None:
    """An invalid field is a 400 with its name on this route, before the engine is asked."""
    result = service.ask("POST", PATH, ASK | {"stream": stream} | fields)
    assert service.code(result) == (400, "invalid_field")
    assert result.json["error"]["param"] == param
    assert service.engine.requests == []
    assert is_free(service)


def test_a_format_excludes_required_tool_calls(service: Service) -> None:
    """With a format, a required tool call is refused, and an optional tool is left out."""
    body = ASK | {"text": {"format": {"type": "json_object"}}, "tools": [F]}
    assert service.ask("POST", PATH, body).status_code == 200
    assert service.engine.requests[-1].prompt == ChatPrompt([Message(role="user", content="hi")])
    for choice in ("required", {"type": "function", "name": "f"}):
        result = service.ask("POST", PATH, body | {"tool_choice": choice})
        assert service.code(result) == (400, "invalid_field")
        assert result.json["error"]["param"] == "tool_choice"


def test_a_model_that_does_not_answer_is_refused(service: Service) -> None:
    """An unknown model is a 404, and one that is not loaded a 409."""
    service.add_model("other.gguf")
    result = service.ask("POST", PATH, ASK | {"model": "nobody"})
    assert service.code(result) == (404, "model_not_found")
    result = service.ask("POST", PATH, ASK | {"model": "other.gguf"})
    assert service.code(result) == (409, "conflict")
    assert result.headers["x-should-retry"] == "false"
