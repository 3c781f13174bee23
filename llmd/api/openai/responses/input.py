"""The input items and tools that a client sends, and their conversion to messages."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from llmd.api.openai.messages import (
    ROLES,
    ChosenFunction,
    ContentPart,
    FunctionBody,
    ToolChoice,
    ToolChoiceField,
    text_of,
    to_tools,
)
from llmd.api.openai.request_fields import Json
from llmd.engine.protocol import Call, Message, Tools
from llmd.errors import InvalidField


class InputItem(Struct, frozen=True, kw_only=True):
    """A message, a function call, or the output of a function.

    A message has `role` and `content`. A ``function_call`` has `call_id`, `name` and `arguments`;
    its ``function_call_output`` has the same `call_id` and an `output`. A ``reasoning`` item has
    the thought before the message or call that follows it, as its `content` or its `summary`.
    """

    type: Literal["message", "function_call", "function_call_output", "reasoning"] = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[ContentPart] | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = "{}"
    output: str | list[ContentPart] | None = None
    summary: list[ContentPart] | None = None

    @property
    def thought(self) -> str:
        """The text of a reasoning item, or its summary if it has no text."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content or self.summary or [] if part.text)


class ResponseTool(Struct, frozen=True, kw_only=True):
    """A function that may be called. `parameters` is a JSON schema."""

    name: Annotated[str, Meta(pattern="^[A-Za-z0-9_.-]{1,64}$")]
    type: Literal["function"] = "function"
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None


class ResponseToolChoice(Struct, frozen=True, kw_only=True):
    """A function that the model must call."""

    name: str
    type: Literal["function"] = "function"


def read_input(given: str | list[InputItem]) -> list[Message]:
    """Return the messages of an input. Raise `InvalidField` if it has none, or one without text."""
    if isinstance(given, str):
        return [Message(role="user", content=given)]
    messages: list[Message] = []
    names: dict[str, str] = {}
    thoughts: list[str] = []
    for index, item in enumerate(given):
        field = f"input[{index}]"
        if item.type == "reasoning":
            thoughts += [item.thought] if item.thought else []
            continue
        is_answer = item.type == "function_call" or item.role == "assistant"
        reasoning = "\n".join(thoughts) if is_answer else ""
        if thoughts and not is_answer:
            # The answer was cut off within its thought.
            messages.append(Message(role="assistant", content="", reasoning="\n".join(thoughts)))
        thoughts = []
        if item.type == "function_call":
            names[item.call_id] = item.name
            call = Call(name=item.name, arguments=item.arguments, id=item.call_id)
            _add_call(messages, call, reasoning)
        elif item.type == "function_call_output":
            messages.append(
                Message(
                    role="tool",
                    content=text_of(item.output, f"{field}.output") or "",
                    call_id=item.call_id,
                    name=names.get(item.call_id, ""),
                )
            )
        else:
            content = text_of(item.content, f"{field}.content")
            if item.role is None or content is None:
                raise InvalidField(f"{field} must have a role and content", param=field)
            messages.append(Message(role=ROLES[item.role], content=content, reasoning=reasoning))
    if not messages:
        raise InvalidField("input must have at least one message", param="input")
    return messages


def _add_call(messages: list[Message], call: Call, reasoning: str) -> None:
    """Add a call to the assistant's message before it, or to a new one if a thought came first."""
    last = messages[-1] if messages else None
    if last is not None and last.role == "assistant" and not reasoning:
        messages[-1] = msgspec.structs.replace(last, calls=[*last.calls, call])
    else:
        messages.append(Message(role="assistant", content="", calls=[call], reasoning=reasoning))


def read_tools(
    given: list[ResponseTool],
    choice: Literal["none", "auto", "required"] | ResponseToolChoice | None,
    *,
    parallel: bool,
) -> Tools | None:
    """Return the tools that the model may call; None if it may call none."""
    chosen: ToolChoiceField | None = (
        ToolChoice(function=ChosenFunction(name=choice.name))
        if isinstance(choice, ResponseToolChoice)
        else choice
    )
    functions = [
        FunctionBody(name=tool.name, description=tool.description, parameters=tool.parameters)
        for tool in given
    ]
    return to_tools(functions, chosen, parallel=parallel)
