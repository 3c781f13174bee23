"""`/v1/chat/completions`: how a body becomes a request to the engine."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from llmd.api.openai.request_fields import MAX_AFFINITY_CHARS
from llmd.engine.engine import Request
from llmd.engine.protocol import (
    Call,
    ChatPrompt,
    Constraint,
    Grammar,
    JsonSchema,
    Message,
    Part,
    TextPrompt,
    Tool,
    Tools,
)
from tests.support.service import Service

USER = {"role": "user", "content": "hi"}
HI: dict[str, Any] = {"model": "default", "messages": [USER]}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"name": "weather", "description": "Tells it.", "parameters": SCHEMA, "strict": True}
TOOLS = [
    {"type": "function", "function": WEATHER},
    {"type": "function", "function": {"name": "now", "description": None}},
]
WEATHER_TOOL = Tool(
    name="weather", description="Tells it.", parameters=msgspec.json.encode(SCHEMA).decode()
)
NOW_TOOL = Tool(name="now", description="", parameters="{}")


def _asked(service: Service, headers: dict[str, str] | None = None, **fields: Any) -> Request:
    """Return the request that reaches the engine for a body with these fields."""
    result = service.ask("POST", "/v1/chat/completions", HI | fields, headers=headers)
    assert result.status_code == 200, result.text
    return service.engine.requests[-1]


def _chat(service: Service, **fields: Any) -> ChatPrompt:
    prompt = _asked(service, **fields).prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt


# Messages


def test_every_kind_of_message_reaches_the_model(service: Service) -> None:
    """Developers become the system, parts are joined, and a result gets the name of its tool."""
    call = {"name": "weather", "arguments": '{"city": "Köln"}'}
    messages = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Is it "}, {"type": "text", "text": "warm?"}],
            "name": "ann",
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": call}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "30 °C"},
        {"role": "assistant", "content": "Yes.", "tool_calls": []},
        {"role": "user", "content": "Thanks."},
    ]
    assert _chat(service, messages=messages).messages == [
        Message(role="system", content="Be brief."),
        Message(role="user", content="Is it warm?"),
        Message(
            role="assistant",
            content="",
            calls=[Call(name="weather", arguments='{"city": "Köln"}', id="call_1")],
        ),
        Message(role="tool", content="30 °C", call_id="call_1", name="weather"),
        Message(role="assistant", content="Yes."),
        Message(role="user", content="Thanks."),
    ]


def test_a_result_without_its_call_keeps_its_own_name(service: Service) -> None:
    """A tool result whose call was left out has the name that it was sent with."""
    result = {"role": "tool", "tool_call_id": "x", "name": "weather", "content": "30 °C"}
    [_, message] = _chat(service, messages=[USER, result]).messages
    assert message == Message(role="tool", content="30 °C", call_id="x", name="weather")


def test_the_result_of_a_function_has_its_name(service: Service) -> None:
    """The result of a function, which older clients send without an id, has the function's name."""
    result = {"role": "function", "name": "weather", "content": "30 °C"}
    [_, message] = _chat(service, messages=[USER, result]).messages
    assert message == Message(role="tool", content="30 °C", name="weather")


def test_template_variables_are_passed_on(service: Service) -> None:
    """Template variables are passed on, for example to switch reasoning off."""
    given = {"enable_thinking": False, "level": 2}
    assert json.loads(_chat(service, chat_template_kwargs=given).variables) == given
    assert _chat(service).variables == "{}"


def test_the_effort_of_reasoning_is_a_template_variable(service: Service) -> None:
    """`reasoning_effort` is a variable of the template; `none` turns thinking off."""
    low = _chat(service, reasoning_effort="low", chat_template_kwargs={"a": 1}).variables
    assert json.loads(low) == {"reasoning_effort": "low", "a": 1}
    assert json.loads(_chat(service, reasoning_effort="none").variables) == {
        "enable_thinking": False
    }
    own = _chat(service, reasoning_effort="low", chat_template_kwargs={"reasoning_effort": "max"})
    assert json.loads(own.variables) == {"reasoning_effort": "max"}


# Thoughts and the last message


@pytest.mark.parametrize(
    ("fields", "reasoning"),
    [
        ({"reasoning_content": "Hm."}, "Hm."),
        ({"reasoning": "Hm."}, "Hm."),
        ({"reasoning_content": "Hm.", "reasoning": "Other."}, "Hm."),
        ({"reasoning": {"effort": "low"}}, ""),
        ({"reasoning_content": None, "reasoning": None}, ""),
    ],
)
def test_thoughts_of_earlier_answers_reach_the_model(
    service: Service, fields: dict[str, Any], reasoning: str
) -> None:
    """An assistant's message has its thought, by either name of the field."""
    said = {"role": "assistant", "content": "Yes.", **fields}
    [_, message, _] = _chat(service, messages=[USER, said, USER]).messages
    assert message == Message(role="assistant", content="Yes.", reasoning=reasoning)


def test_only_the_assistant_has_thoughts(service: Service) -> None:
    """A thought in a user's message is ignored, as other unknown fields of messages are."""
    [message] = _chat(service, messages=[USER | {"reasoning_content": "Hm."}]).messages
    assert message == Message(role="user", content="hi")


SAID = {"role": "assistant", "content": "Well"}
THOUGHT = {"role": "assistant", "content": None, "reasoning_content": "Hm"}
CALLED = {
    "role": "assistant",
    "content": "Well",
    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f"}}],
}


@pytest.mark.parametrize(
    ("last", "fields", "ending"),
    [
        (USER, {}, "answer"),
        (SAID, {}, "content"),
        (THOUGHT, {}, "reasoning"),
        (SAID | {"reasoning_content": "Hm"}, {}, "content"),
        (CALLED, {}, "answer"),
        (SAID, {"continue_final_message": True}, "content"),
        (SAID, {"continue_final_message": True, "add_generation_prompt": False}, "content"),
        (SAID, {"continue_final_message": "content"}, "content"),
        (SAID, {"continue_final_message": "reasoning_content"}, "reasoning"),
        (SAID, {"add_generation_prompt": True}, "answer"),
        (SAID, {"continue_final_message": False}, "answer"),
        (SAID, {"continue_final_message": False, "add_generation_prompt": False}, "nothing"),
        (USER, {"add_generation_prompt": False}, "nothing"),
        (USER, {"add_generation_prompt": True}, "answer"),
    ],
)
def test_a_last_message_of_the_assistant_is_continued(
    service: Service, last: dict[str, Any], fields: dict[str, Any], ending: str
) -> None:
    """By default the answer continues the assistant's message, as llama.cpp's server has it."""
    prompt = _chat(service, messages=[USER, last], **fields)
    assert prompt.ending == ending
    assert len(prompt.messages) == 2


def test_an_empty_last_message_of_the_assistant_is_a_new_answer(service: Service) -> None:
    """An empty message of the assistant is left out, and the answer is a new one."""
    empty = {"role": "assistant", "content": None}
    prompt = _chat(service, messages=[USER, empty])
    assert prompt == ChatPrompt([Message(role="user", content="hi")])


@pytest.mark.parametrize(
    ("last", "fields"),
    [
        (USER, {"continue_final_message": True}),
        (CALLED, {"continue_final_message": True}),
        (SAID, {"continue_final_message": True, "add_generation_prompt": True}),
        (SAID, {"continue_final_message": "yes"}),
    ],
)
def test_what_cannot_be_continued_is_refused(
    service: Service, last: dict[str, Any], fields: dict[str, Any]
) -> None:
    """The error names the field."""
    result = service.ask("POST", "/v1/chat/completions", HI | {"messages": [USER, last], **fields})
    assert result.status_code == 400
    assert result.json["error"]["param"] == "continue_final_message"


def test_a_profiles_template_is_followed_by_the_text_that_is_continued(service: Service) -> None:
    """In a profile's template the question is the input, and the begun answer comes last."""
    service.put_profile("t", template="Question: {input}\nAnswer:")
    assert _asked(service, model="t", messages=[USER, SAID]).prompt == TextPrompt(
        [
            Part(text="Question: ", literal=True),
            Part(text="hi"),
            Part(text="\nAnswer:", literal=True),
            Part(text="Well"),
        ]
    )
    body = HI | {"model": "t", "messages": [USER, THOUGHT]}
    assert service.code(service.ask("POST", "/v1/chat/completions", body))[0] == 400


@pytest.mark.parametrize("role", ["system", "developer"])
def test_the_profiles_system_text_applies_unless_the_client_sends_one(
    service: Service, role: str
) -> None:
    """A profile's system text comes first unless the client sends one, also by the file's name."""
    service.put_profile("default", system="Be kind.")
    kind = Message(role="system", content="Be kind.")
    for model in ("default", "tiny.gguf"):
        hi = Message(role="user", content="hi")
        assert _chat(service, model=model).messages == [kind, hi]
        own = {"role": role, "content": "Be brief."}
        messages = _chat(service, model=model, messages=[own, USER]).messages
        assert messages == [Message(role="system", content="Be brief."), hi]


def test_a_profiles_template_takes_the_last_message_as_input(service: Service) -> None:
    """In a profile's template, {input} is the last message and {chat_history} those before it.

    Only the template's own text may spell special tokens.
    """
    service.put_profile("t", template="<s>{chat_history}\nQuestion: {input}\nAnswer:")
    messages = [
        {"role": "system", "content": "Be brief."},
        USER,
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "{input}"},
    ]
    request = _asked(service, model="t", messages=messages, tools=TOOLS)
    assert request.prompt == TextPrompt(
        [
            Part(text="<s>", literal=True),
            Part(text="Be brief.\nHuman: hi\nAI: Hello."),
            Part(text="\nQuestion: ", literal=True),
            Part(text="{input}"),
            Part(text="\nAnswer:", literal=True),
        ]
    )
    assert request.stop == ["Question:", "Human:"]
    assert _asked(service, model="t", stop=[]).stop == []


# Tools


def test_tools_are_described_as_the_client_describes_them(service: Service) -> None:
    """A tool's schema is passed on unchanged; a tool without one has no parameters."""
    expected = Tools(tools=[WEATHER_TOOL, NOW_TOOL], required=False, parallel=True)
    assert _chat(service, tools=TOOLS).tools == expected
    assert _chat(service, tools=TOOLS, tool_choice="auto").tools == expected


@pytest.mark.parametrize("choice", ["required", "any"])
def test_a_tool_call_can_be_required(service: Service, choice: str) -> None:
    """With `required` or `any` the model must call one of the tools."""
    tools = _chat(service, tools=TOOLS, tool_choice=choice).tools
    assert tools == Tools(tools=[WEATHER_TOOL, NOW_TOOL], required=True, parallel=True)


def test_a_named_tool_is_the_only_one(service: Service) -> None:
    """A tool that is named in `tool_choice` is the only one, and must be called once."""
    choice = {"type": "function", "function": {"name": "now"}}
    tools = _chat(service, tools=TOOLS, tool_choice=choice).tools
    assert tools == Tools(tools=[NOW_TOOL], required=True, parallel=False)


def test_parallel_calls_can_be_switched_off(service: Service) -> None:
    """Parallel tool calls are allowed unless `parallel_tool_calls` is false."""
    for value, parallel in ((False, False), (True, True), (None, True)):
        tools = _chat(service, tools=TOOLS, parallel_tool_calls=value).tools
        assert tools is not None
        assert tools.parallel is parallel


@pytest.mark.parametrize(
    "fields", [{}, {"tools": []}, {"tools": TOOLS, "tool_choice": "none"}, {"tool_choice": "none"}]
)
def test_tools_that_cannot_be_called_are_left_out(service: Service, fields: dict[str, Any]) -> None:
    """Tools that must not be called are left out of the prompt."""
    assert _chat(service, **fields).tools is None


def test_an_answer_with_a_response_format_calls_no_tools(service: Service) -> None:
    """With a response format, tools that need not be called are left out."""
    response_format = {"type": "json_object"}
    request = _asked(service, tools=TOOLS, response_format=response_format)
    assert request.prompt == ChatPrompt([Message(role="user", content="hi")])
    assert request.constraint is not None


# The format of the answer


@pytest.mark.parametrize(
    ("fields", "constraint"),
    [
        ({}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"grammar": ""}, None),
        ({"response_format": {"type": "json_object"}}, {"type": "object"}),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, SCHEMA),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "place", "schema": SCHEMA, "strict": True},
                }
            },
            SCHEMA,
        ),
        ({"response_format": {"type": "json_schema", "schema": SCHEMA}}, SCHEMA),
        ({"json_schema": SCHEMA}, SCHEMA),
        ({"response_format": {"type": "text"}, "json_schema": SCHEMA}, SCHEMA),
        ({"grammar": 'root ::= "yes"'}, Grammar('root ::= "yes"')),
    ],
)
def test_the_answer_is_constrained_to_the_requested_format(
    service: Service, fields: dict[str, Any], constraint: dict[str, Any] | Constraint | None
) -> None:
    """The answer is constrained by OpenAI's field or by one of llama.cpp's."""
    found = _asked(service, **fields).constraint
    if isinstance(constraint, dict):
        assert isinstance(found, JsonSchema)
        assert json.loads(found.schema) == constraint
    else:
        assert found == constraint


@pytest.mark.parametrize(
    ("fields", "number"),
    [
        ({}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 20}, 20),
        ({"logprobs": False, "top_logprobs": 5}, None),
        ({"top_logprobs": 5}, None),
    ],
)
def test_log_probabilities_are_computed_on_request(
    service: Service, fields: dict[str, Any], number: int | None
) -> None:
    """Log probabilities are computed only if `logprobs` is true, whatever `top_logprobs` is."""
    assert _asked(service, **fields).num_logprobs == number


# The name of the conversation


@pytest.mark.parametrize("header", ["X-OpenWebUI-Chat-Id", "X-Conversation-Id", "X-Session-ID"])
def test_a_header_names_the_conversation(service: Service, header: str) -> None:
    """A header names the conversation and wins over `user`; a tilde marks it as not stored."""
    request = _asked(service, {header: "c1"}, user="ann")
    assert (request.owner, request.session) == (service.user_key.id, "~c1")


def test_the_user_names_the_conversation_without_a_header(service: Service) -> None:
    """Without a header, `user` names the conversation; without both it has no name."""
    assert _asked(service, user="ann").session == "~ann"
    assert _asked(service, {"X-Conversation-Id": ""}, user="ann").session == "~ann"
    assert _asked(service, user="").session == ""
    assert _asked(service).session == ""


def test_a_long_name_of_a_conversation_is_cut(service: Service) -> None:
    """A long name of a conversation is cut, since it is only a hint."""
    name = "c" * (MAX_AFFINITY_CHARS + 1)
    expected = f"~{name[:-1]}"
    assert _asked(service, {"X-Session-ID": name}).session == expected
    assert _asked(service, user=name).session == expected
