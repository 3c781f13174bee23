"""The messages and tools of a chat as OpenAI's clients send them, and their conversion."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from llmd.api.openai.request_fields import Json
from llmd.engine.protocol import Call, Constraint, Ending, Message, Role, Tool, Tools
from llmd.errors import InvalidField

_ToolName = Annotated[str, Meta(pattern="^[A-Za-z0-9_.-]{1,64}$")]


class ContentPart(Struct, frozen=True, kw_only=True):
    """A part of a message's content. Only text is supported."""

    type: str
    text: str | None = None
    refusal: str | None = None


class CalledFunction(Struct, frozen=True, kw_only=True):
    """A function that was called. `arguments` is JSON text."""

    name: str
    arguments: str = "{}"


class ToolCallBody(Struct, frozen=True, kw_only=True):
    """A tool call in an earlier answer."""

    function: CalledFunction
    id: str = ""
    type: str = "function"


class ChatMessage(Struct, frozen=True, kw_only=True):
    """A message. An assistant's message may lack content.

    `reasoning_content` is the thought before it, as an answer has it; some clients send
    `reasoning`.
    """

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCallBody] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | Json | None = None

    @property
    def thought(self) -> str:
        """The thought of an assistant's message; empty for any other message."""
        if ROLES[self.role] != "assistant":
            return ""
        alias = self.reasoning if isinstance(self.reasoning, str) else ""
        return self.reasoning_content or alias


class FunctionBody(Struct, frozen=True, kw_only=True):
    """A function that may be called. `parameters` is a JSON schema."""

    name: _ToolName
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None


class ToolBody(Struct, frozen=True, kw_only=True):
    """A tool. Functions are the only kind that is supported."""

    function: FunctionBody
    type: Literal["function"] = "function"


class ChosenFunction(Struct, frozen=True, kw_only=True):
    """The name of the function to call."""

    name: str


class ToolChoice(Struct, frozen=True, kw_only=True):
    """A function that the model must call."""

    function: ChosenFunction
    type: Literal["function"] = "function"


ToolChoiceField = Literal["none", "auto", "required", "any"] | ToolChoice
"""Values of the field `tool_choice`. Some clients send `any` for `required`."""


ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
"""The role for the chat template, for each role in OpenAI's API."""


def to_messages(given: list[ChatMessage]) -> list[Message]:
    """Return messages for the engine. Raise `InvalidField` for content other than text."""
    messages: list[Message] = []
    names: dict[str, str] = {}
    for index, message in enumerate(given):
        calls = [
            Call(name=call.function.name, arguments=call.function.arguments, id=call.id)
            for call in message.tool_calls or []
        ]
        names |= {call.id: call.name for call in calls}
        content = text_of(message.content, f"messages[{index}].content")
        # Home Assistant sends an empty answer of the assistant like this.
        if content is None and not calls and message.role != "assistant":
            raise InvalidField(
                f"messages[{index}] has neither content nor tool_calls", param="messages"
            )
        call_id = message.tool_call_id or ""
        messages.append(
            Message(
                role=ROLES[message.role],
                content=content or "",
                calls=calls,
                call_id=call_id,
                name=_tool_name_of(message, names),
                reasoning=message.thought,
            )
        )
    return messages


ContinueField = bool | Literal["content", "reasoning_content"]
"""Values of the field `continue_final_message`, as llama.cpp's server takes them."""


def with_ending(
    messages: list[Message],
    continue_final_message: ContinueField | None,
    add_generation_prompt: bool | None,
) -> tuple[list[Message], Ending]:
    """Return the messages of a chat, and how their prompt ends.

    A last message of the assistant is continued, unless one of the two fields says otherwise.
    Raise `InvalidField` if the fields contradict each other or the messages.
    """
    last = messages[-1]
    if continue_final_message:
        if add_generation_prompt:
            raise InvalidField(
                "continue_final_message and add_generation_prompt cannot both be true",
                param="continue_final_message",
            )
        if last.role != "assistant" or last.calls:
            raise InvalidField(
                "continue_final_message needs a last message of the assistant without tool_calls",
                param="continue_final_message",
            )
        return messages, _open_field(last, continue_final_message)
    if continue_final_message is None and not add_generation_prompt and _is_answer(last):
        if last.content or last.reasoning:
            return messages, _open_field(last, continue_final_message=True)
        # An empty answer is a new one. Home Assistant sends it.
        return messages[:-1] or messages, "answer"
    return messages, "nothing" if add_generation_prompt is False else "answer"


def _is_answer(message: Message) -> bool:
    return message.role == "assistant" and not message.calls


def _open_field(message: Message, continue_final_message: ContinueField) -> Ending:
    """Return the field of a message that is continued."""
    if isinstance(continue_final_message, str):
        return "content" if continue_final_message == "content" else "reasoning"
    return "reasoning" if message.reasoning and not message.content else "content"


def template_variables(given: Json | None, effort: str | None) -> str:
    """Return the variables of a request for the model's chat template, as JSON text.

    The effort ``none`` turns thinking off, as in llama.cpp's server.
    """
    variables: Json = {}
    if effort == "none":
        variables["enable_thinking"] = False
    elif effort:
        variables["reasoning_effort"] = effort
    return msgspec.json.encode(variables | (given or {})).decode()


def _tool_name_of(message: ChatMessage, names: dict[str, str]) -> str:
    """Return the name of the tool whose result the message is; "" for any other message."""
    if ROLES[message.role] != "tool":
        return ""
    return names.get(message.tool_call_id or "", message.name or "")


def text_of(content: str | list[ContentPart] | None, field: str) -> str | None:
    """Return the text of a message's content. Raise `InvalidField` for images and other parts."""
    if content is None or isinstance(content, str):
        return content
    texts: list[str] = []
    for part in content:
        if part.type not in {"text", "input_text", "output_text", "refusal"}:
            raise InvalidField(
                f"{field} has a part of type {part.type!r}: only text is supported",
                param=field,
            )
        texts.append(part.text or part.refusal or "")
    return "".join(texts)


def to_tools(
    functions: list[FunctionBody], choice: ToolChoiceField | None, *, parallel: bool
) -> Tools | None:
    """Return the tools that the model may call; None if it may call none."""
    if isinstance(choice, ToolChoice):
        named = [function for function in functions if function.name == choice.function.name]
        if not named:
            raise InvalidField(
                "tool_choice names a function that is not in tools", param="tool_choice"
            )
        return Tools(tools=list(map(_tool, named)), required=True, parallel=False)
    is_required = choice in ("required", "any")
    if is_required and not functions:
        raise InvalidField("tool_choice needs tools to choose from", param="tool_choice")
    if choice == "none" or not functions:
        return None
    if len({function.name for function in functions}) < len(functions):
        raise InvalidField("two tools have the same name", param="tools")
    return Tools(tools=list(map(_tool, functions)), required=is_required, parallel=parallel)


def tools_unless_constrained(tools: Tools | None, constraint: Constraint | None) -> Tools | None:
    """Return the tools, or None if a constraint leaves the answer no tool calls.

    Raise `InvalidField` if there is a constraint but a tool call is required.
    """
    if tools is None or constraint is None:
        return tools
    if tools.required:
        raise InvalidField(
            "a required tool call cannot be combined with a format or grammar of the answer",
            param="tool_choice",
        )
    return None


def _tool(function: FunctionBody) -> Tool:
    return Tool(
        name=function.name,
        description=function.description or "",
        parameters=msgspec.json.encode(function.parameters or {}).decode(),
    )
