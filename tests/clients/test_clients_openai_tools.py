"""OpenAI's client lets the model call functions."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionMessageFunctionToolCall
from openai.types.chat.chat_completion_chunk import ChatCompletionChunk, ChoiceDeltaToolCall

from tests.clients.sdk import MODEL, Said, ask, content_of, stream
from tests.clients.tools import LAMP, QUESTION, TOOLS, WEATHER, check_arguments

pytestmark = pytest.mark.e2e

FORCED: dict[str, Any] = {
    "tools": TOOLS,
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "max_tokens": 64,
}


def _named(name: str) -> dict[str, Any]:
    choice = {"type": "function", "function": {"name": name}}
    return {"tools": TOOLS, "tool_choice": choice, "max_tokens": 64}


def _calls(answer: ChatCompletion) -> list[ChatCompletionMessageFunctionToolCall]:
    """Return the tool calls of an answer's only choice."""
    (choice,) = answer.choices
    calls = choice.message.tool_calls or []
    for call in calls:
        assert isinstance(call, ChatCompletionMessageFunctionToolCall)
        assert call.type == "function"
    assert len({call.id for call in calls}) == len(calls)
    return [call for call in calls if call.type == "function"]


def test_tool_calls_can_be_optional(client: OpenAI) -> None:
    """If tool calls are optional, the model answers with text or with well-formed calls."""
    for options in ({"tools": TOOLS}, {"tools": TOOLS, "tool_choice": "auto"}):
        answer = ask(client, QUESTION, max_tokens=48, **options)
        calls = _calls(answer)
        assert calls or content_of(answer)
        if answer.choices[0].finish_reason == "tool_calls":
            assert calls
            for call in calls:
                check_arguments(call.function.name, call.function.arguments)


def test_tool_calls_can_be_forbidden(client: OpenAI) -> None:
    """With the tool choice `none` the answer is text."""
    answer = ask(client, QUESTION, tools=TOOLS, tool_choice="none")
    assert not _calls(answer)
    assert content_of(answer)
    assert answer.choices[0].finish_reason in {"stop", "length"}


def test_a_call_can_be_required(client: OpenAI) -> None:
    """A required call may be of any function, and its arguments follow the function's schema."""
    answer = ask(client, QUESTION, **FORCED)
    (call,) = _calls(answer)
    assert call.id
    check_arguments(call.function.name, call.function.arguments)
    assert answer.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("name", [WEATHER, LAMP])
def test_a_call_of_one_function_can_be_required(client: OpenAI, name: str) -> None:
    """A call of a named function can be required, even if it makes no sense."""
    answer = ask(client, QUESTION, **_named(name))
    (call,) = _calls(answer)
    assert call.function.name == name
    check_arguments(name, call.function.arguments)
    assert answer.choices[0].finish_reason == "tool_calls"


def test_several_calls_are_all_well_formed(client: OpenAI) -> None:
    """Of several calls, each that was not cut off is well-formed."""
    question = "Tell the weather of Paris and of Rome, and switch on the lamp in the hall."
    answer = ask(client, question, tools=TOOLS, tool_choice="required", max_tokens=96)
    calls = _calls(answer)
    assert calls
    whole = calls[:-1] if answer.choices[0].finish_reason == "length" else calls
    for call in whole:
        check_arguments(call.function.name, call.function.arguments)


def test_an_unknown_function_cannot_be_required(client: OpenAI) -> None:
    """An unknown function cannot be required, nor a call without any tools."""
    with pytest.raises(openai.BadRequestError) as unknown:
        ask(client, QUESTION, tools=TOOLS, tool_choice=_named("no_such")["tool_choice"])
    with pytest.raises(openai.BadRequestError) as none:
        ask(client, QUESTION, tool_choice="required")
    assert unknown.value.param == none.value.param == "tool_choice"


def _deltas(chunks: list[ChatCompletionChunk]) -> list[ChoiceDeltaToolCall]:
    """Return the pieces of calls. A chunk has at most one: some clients read only the first."""
    found: list[ChoiceDeltaToolCall] = []
    for chunk in chunks:
        for choice in chunk.choices:
            pieces = choice.delta.tool_calls or []
            assert len(pieces) <= 1
            found += pieces
    return found


@pytest.mark.parametrize("options", [FORCED, _named(LAMP)], ids=["any", "named"])
def test_streamed_calls_are_those_of_the_whole_answer(
    client: OpenAI, options: dict[str, Any]
) -> None:
    """A streamed call begins with its id and name and has the arguments of the whole answer."""
    (expected,) = _calls(ask(client, QUESTION, **options))
    chunks = stream(client, QUESTION, **options)
    first, *rest = _deltas(chunks)
    assert first.index == 0
    assert first.id
    assert first.type == "function"
    assert first.function
    assert first.function.name == expected.function.name
    arguments = first.function.arguments or ""
    for piece in rest:
        assert piece.index == 0
        assert piece.id is None
        assert piece.type is None
        assert piece.function
        assert piece.function.name is None
        arguments += piece.function.arguments or ""
    assert arguments == expected.function.arguments
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_streamed_calls_have_an_index(client: OpenAI) -> None:
    """Several streamed calls have an index each, which all their pieces carry."""
    question = "Tell the weather of Paris and of Rome, and switch on the lamp in the hall."
    options: dict[str, Any] = {"tools": TOOLS, "tool_choice": "required", "max_tokens": 96}
    expected = _calls(ask(client, question, **options))
    names: dict[int, str | None] = {}
    arguments: dict[int, str] = defaultdict(str)
    for piece in _deltas(stream(client, question, **options)):
        assert piece.function
        if piece.id is not None:
            assert piece.index == len(names)
            names[piece.index] = piece.function.name
        assert piece.index == len(names) - 1
        arguments[piece.index] += piece.function.arguments or ""
    assert list(names.values()) == [call.function.name for call in expected]
    assert list(arguments.values()) == [call.function.arguments for call in expected]


def test_the_clients_own_reader_puts_streamed_calls_together(client: OpenAI) -> None:
    """The client's own reader of streams builds the call and parses its arguments."""
    with client.chat.completions.stream(
        model=MODEL,
        messages=[{"role": "user", "content": QUESTION}],
        tools=[{**tool, "function": {**tool["function"], "strict": True}} for tool in TOOLS],
        tool_choice={"type": "function", "function": {"name": WEATHER}},
        max_tokens=64,
    ) as events:
        events.until_done()
        final = events.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert calls
    assert calls[0].function.name == WEATHER
    assert calls[0].function.parsed_arguments == check_arguments(
        WEATHER, calls[0].function.arguments
    )


def test_results_of_tools_are_answered(client: OpenAI) -> None:
    """A conversation with a call and its result is answered with text."""
    (call,) = _calls(ask(client, QUESTION, **_named(WEATHER)))
    conversation: Said = [
        {"role": "user", "content": QUESTION},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {
                        "name": call.function.name,
                        "arguments": call.function.arguments,
                    },
                }
            ],
        },
        {"role": "tool", "tool_call_id": call.id, "content": '{"weather": "rain"}'},
    ]
    answer = ask(client, conversation, tools=TOOLS, tool_choice="none")
    assert content_of(answer)
    alone = ask(client, QUESTION, tools=TOOLS, tool_choice="none")
    assert answer.usage and alone.usage
    assert answer.usage.prompt_tokens > alone.usage.prompt_tokens


def test_a_function_may_have_no_parameters(client: OpenAI) -> None:
    """A function without parameters is called with an empty object."""
    ping = {
        "type": "function",
        "function": {
            "name": "ping",
            "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
        },
    }
    answer = ask(
        client,
        "Ping!",
        tools=[ping],
        tool_choice="required",
        max_tokens=32,
        parallel_tool_calls=False,
    )
    (call,) = _calls(answer)
    assert (call.function.name, call.function.arguments) == ("ping", "{}")
