"""Convert tools, calls and results for chat templates.

Templates that know tools get them in OpenAI's format, all others as text of messages.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec

from llmd.engine.protocol import Call, Message, Tool, Tools
from llmd.worker.syntax import HERMES
from llmd.worker.tool_schema import parameters_of

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

_ID_CHARS = 9
"""Length of a call's id in Mistral's templates."""


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


def template_messages(messages: list[Message]) -> list[dict[str, object]]:
    """Return messages in the format of Hugging Face's library, which templates expect."""
    return [_message_dict(message) for message in messages]


def template_tools(tools: Tools) -> list[dict[str, Any]]:
    """Return tools in OpenAI's format. Raise `InvalidField` if a schema is no JSON object."""
    return [_tool_dict(tool) for tool in tools.tools]


def _tool_dict(tool: Tool) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": parameters_of(tool) or {"type": "object", "properties": {}},
        },
    }


def _with_instruction(messages: list[Message], tools: Tools) -> list[Message]:
    lines = "\n".join(_json(tool) for tool in template_tools(tools))
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


def _message_dict(message: Message) -> dict[str, object]:
    given: dict[str, object] = {"role": message.role, "content": message.content}
    # Templates check whether these keys exist, not whether their values are empty.
    if message.calls:
        given["tool_calls"] = [
            {
                "id": _short_id(call.id),
                "type": "function",
                "function": {"name": call.name, "arguments": _arguments(call.arguments)},
            }
            for call in message.calls
        ]
    if message.role == "tool":
        given["tool_call_id"] = _short_id(message.call_id)
        given["name"] = message.name
    return given


def _arguments(text: str) -> object:
    """Return arguments as an object, or as text if they are not a JSON object."""
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def _short_id(call_id: str) -> str:
    """Return an id of nine letters and digits. Mistral's templates refuse all others."""
    if len(call_id) == _ID_CHARS and call_id.isascii() and call_id.isalnum():
        return call_id
    return hashlib.sha256(call_id.encode("utf-8", "replace")).hexdigest()[:_ID_CHARS]


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
