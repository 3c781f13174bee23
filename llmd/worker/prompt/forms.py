"""Bring messages into the form that a chat template takes."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec

from llmd.engine.protocol import Call, Message, Tools
from llmd.errors import InvalidField
from llmd.worker.prompt.capabilities import Capabilities
from llmd.worker.tool_schema import parameters_of

_BETWEEN = "\n\n"
"""The text between the contents of messages that are joined."""

_ID_CHARS = 9
"""Length of a call's id in Mistral's templates."""


def fit_messages(messages: list[Message], can: Capabilities) -> list[Message]:
    """Return messages in an order and number that the template takes, with all their texts.

    Raise `InvalidField` if the template would leave out any of them.
    """
    fitted = _split_texts(_fit_systems(messages, can), can)
    if not can.parallel_calls:
        fitted = _split_calls(fitted)
    if not can.user_after_result:
        fitted = _answer_results(fitted)
    for role in ("user", "assistant"):
        if role in can.joined_roles:
            fitted = _joined(fitted, role)
    first = next((message for message in fitted if message.role != "system"), None)
    if not can.assistant_first and first is not None and first.role == "assistant":
        fitted.insert(fitted.index(first), Message(role="user", content="", turn=first.turn))
    _check_shown(fitted, can)
    return fitted


def message_dicts(messages: list[Message], can: Capabilities) -> list[dict[str, Any]]:
    """Return messages in the format of Hugging Face's library, which templates expect."""
    return [_message_dict(message, can) for message in messages]


def tool_values(tools: Tools | None, can: Capabilities) -> dict[str, Any]:
    """Return the variable with the tools, in OpenAI's format, if the template takes them.

    Raise `InvalidField` if a schema is no JSON object.
    """
    if not can.has_tools or (tools is None and not can.needs_tools):
        return {}
    listed = [] if tools is None else tool_dicts(tools)
    text = json.dumps(listed, ensure_ascii=False, indent=2)
    return {can.tools_variable: text if can.tools_as_text else listed}


def tool_dicts(tools: Tools) -> list[dict[str, Any]]:
    """Return tools in OpenAI's format. Raise `InvalidField` if a schema is no JSON object."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": parameters_of(tool) or {"type": "object", "properties": {}},
            },
        }
        for tool in tools.tools
    ]


def _fit_systems(messages: list[Message], can: Capabilities) -> list[Message]:
    """Join system messages at the beginning, and move the text of the others to the users."""
    num_leading = next(
        (at for at, message in enumerate(messages) if message.role != "system"), len(messages)
    )
    leading, others = messages[:num_leading], messages[num_leading:]
    if can.system == "none" or (len(leading) > 1 and not can.several_systems):
        leading = _joined(leading, "system")
    if can.system != "anywhere":
        others = [_as_user(message) for message in others]
    if can.system != "none" or not leading:
        return [*leading, *others]
    if others and others[0].role == "user":
        return [_join(leading[0], others[0]), *others[1:]]
    return [_as_user(leading[0]), *others]


def _as_user(message: Message) -> Message:
    if message.role != "system":
        return message
    return msgspec.structs.replace(message, role="user")


def _joined(messages: list[Message], role: str) -> list[Message]:
    """Return messages in which those of a role never follow each other."""
    joined: list[Message] = []
    for message in messages:
        last = joined[-1] if joined else None
        # Calls end a message: nothing may be written between them and their results.
        if last is not None and last.role == message.role == role and not last.calls:
            joined[-1] = _join(last, message)
        else:
            joined.append(message)
    return joined


def _join(first: Message, second: Message) -> Message:
    """Return the second message with the texts of the first before its own."""
    return msgspec.structs.replace(
        second,
        content=_join_texts(first.content, second.content),
        reasoning=_join_texts(first.reasoning, second.reasoning),
    )


def _join_texts(*texts: str) -> str:
    return _BETWEEN.join(text for text in texts if text)


def _split_texts(messages: list[Message], can: Capabilities) -> list[Message]:
    """Return messages in which no text stands beside calls if the template does not take that."""
    if can.splits_text == "never":
        return messages
    split: list[Message] = []
    for message in messages:
        if message.calls and message.content and (message.reasoning or can.splits_text == "always"):
            split.append(msgspec.structs.replace(message, calls=[], reasoning=""))
            split.append(msgspec.structs.replace(message, content=""))
        else:
            split.append(message)
    return split


def _split_calls(messages: list[Message]) -> list[Message]:
    """Return messages with at most one call each, and the result of each call behind it."""
    split: list[Message] = []
    at = 0
    while at < len(messages):
        message = messages[at]
        at += 1
        if len(message.calls) < 2:
            split.append(message)
            continue
        num_results = next(
            (n for n, other in enumerate(messages[at:]) if other.role != "tool"),
            len(messages) - at,
        )
        results = messages[at : at + num_results]
        at += num_results
        for number, call in enumerate(message.calls):
            own = [result for result in results if result.call_id == call.id][:1]
            texts = {} if number == 0 else {"content": "", "reasoning": ""}
            split.append(msgspec.structs.replace(message, calls=[call], **texts))
            split += own
            results = [result for result in results if result not in own]
        split += results
    return split


def _answer_results(messages: list[Message]) -> list[Message]:
    """Return messages with an empty answer between the result of a tool and a user's message."""
    answered: list[Message] = []
    for message in messages:
        if answered and answered[-1].role == "tool" and message.role == "user":
            answered.append(Message(role="assistant", content="", turn=message.turn))
        answered.append(message)
    return answered


def _check_shown(messages: list[Message], can: Capabilities) -> None:
    """Raise `InvalidField` if the template is known to leave out a message."""
    spoken = [message for message in messages if message.role != "system"]
    lost = None
    if not can.shows_user:
        lost = next((message for message in spoken if message.role == "user"), None)
    if not can.shows_history and len(spoken) > 1:
        lost = spoken[1]
    if lost is not None:
        raise InvalidField(
            "the model's chat template leaves out message "
            f"{messages.index(lost) + 1} of {len(messages)} ({lost.role}): "
            "use a profile with a template of its own",
            param="messages",
        )


def _message_dict(message: Message, can: Capabilities) -> dict[str, Any]:
    content: object = message.content
    if message.role in can.typed_roles:
        content = [{"type": "text", "text": message.content}]
    given: dict[str, Any] = {"role": message.role, "content": content}
    if message.reasoning and can.reasoning == "part":
        text = [{"type": "text", "text": message.content}] if message.content else []
        given["content"] = [{"type": "thinking", "thinking": message.reasoning}, *text]
    elif message.reasoning and can.reasoning:
        given[can.reasoning] = message.reasoning
    # Templates check whether these keys exist, not whether their values are empty.
    if message.calls:
        given["tool_calls"] = [_call_dict(call, can) for call in message.calls]
    if message.role == "tool":
        given["tool_call_id"] = _call_id(message.call_id, can)
        given["name"] = message.name
    return given


def _call_dict(call: Call, can: Capabilities) -> dict[str, Any]:
    return {
        "id": _call_id(call.id, can),
        "type": "function",
        "function": {"name": call.name, "arguments": _arguments(call.arguments, can)},
    }


def _arguments(text: str, can: Capabilities) -> object:
    """Return arguments as an object or as text, whatever the template takes."""
    if can.arguments == "text":
        return text.strip() or "{}"
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        value = text
    if isinstance(value, dict):
        return value
    return text if can.text_arguments else {"arguments": value}


def _call_id(call_id: str, can: Capabilities) -> str:
    """Return the id of a call. Mistral's templates refuse all but nine letters and digits."""
    if can.long_call_ids:
        return call_id
    if len(call_id) == _ID_CHARS and call_id.isascii() and call_id.isalnum():
        return call_id
    return hashlib.sha256(call_id.encode("utf-8", "replace")).hexdigest()[:_ID_CHARS]
