"""Describe tools, calls and results in text, for chat templates that do not know tools."""

from __future__ import annotations

import json

import msgspec

from llmd.engine.protocol import Call, Message, Tools
from llmd.worker.prompt.forms import tool_dicts
from llmd.worker.syntax import HERMES

# Only the tools stand between the two texts, so that requests with the same tools share the KV.
_INTRODUCTION = """\
You have tools. Each line between <tools> and </tools> describes one of them as JSON:

<tools>
"""

_INSTRUCTION = f"""
</tools>

Use a tool when the answer needs what only the tool can tell or do; otherwise just answer. To use \
it, write its name and its arguments, which must be valid by its parameters, in this form:

{HERMES.call_start_marker}
{{"name": "the tool's name", "{HERMES.arguments_key}": {{"a parameter's name": "its value"}}}}
{HERMES.call_end_marker}

To use several at once, write several of these. Then stop: what a tool returns is told to you \
between <tool_response> and </tool_response>."""


def plain_messages(messages: list[Message], tools: Tools | None) -> list[Message]:
    """Return messages for a template that does not know tools.

    The first system message describes the tools. Calls become text in the syntax `HERMES`, and
    results become messages of the user. Old calls and results are converted without `tools` too.
    """
    converted: list[Message] = []
    after_result = False
    for message in messages:
        is_result = message.role == "tool"
        plain = _without_tools(message)
        if is_result and after_result and converted[-1].turn == plain.turn:
            # Many templates require that users and assistants alternate.
            content = f"{converted[-1].content}\n{plain.content}"
            converted[-1] = msgspec.structs.replace(converted[-1], content=content)
        else:
            converted.append(plain)
        after_result = is_result
    return converted if tools is None else _with_instruction(converted, tools)


def _with_instruction(messages: list[Message], tools: Tools) -> list[Message]:
    lines = "\n".join(_json(tool) for tool in tool_dicts(tools))
    text = f"{_INTRODUCTION}{lines}{_INSTRUCTION}"
    for index, message in enumerate(messages):
        if message.role == "system":
            content = f"{message.content}\n\n{text}" if message.content else text
            first = msgspec.structs.replace(message, content=content)
            return [*messages[:index], first, *messages[index + 1 :]]
    return [Message(role="system", content=text), *messages]


def _without_tools(message: Message) -> Message:
    """Return a message whose content contains its calls or result as text."""
    if message.role == "tool":
        content = f"<tool_response>\n{message.content}\n</tool_response>"
        return Message(role="user", content=content, turn=message.turn)
    if not message.calls:
        return message
    texts = [message.content] if message.content else []
    texts += [_call_text(call) for call in message.calls]
    return msgspec.structs.replace(message, content="\n".join(texts), calls=[])


def _call_text(call: Call) -> str:
    """Return a call exactly as the model wrote it, so that the KV of its answer is reused."""
    arguments = call.arguments.strip() or "{}"
    head = f'{{"name": {_json(call.name)}, "{HERMES.arguments_key}": '
    return f"{HERMES.call_start_marker}\n{head}{arguments}}}\n{HERMES.call_end_marker}"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
