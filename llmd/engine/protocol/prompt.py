"""Prompts: ready-made text, messages for the model's chat template, or tokens."""

from __future__ import annotations

from typing import Literal

import msgspec

Role = Literal["system", "user", "assistant", "tool"]

Ending = Literal["answer", "nothing", "content", "reasoning"]
"""How the prompt of a chat ends.

``answer`` opens a new message of the model, and ``nothing`` opens none. With ``content`` and
``reasoning`` the text or the thought of the last message stays open, and the answer continues it.
"""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a prompt.

    `turn` counts the old turns from 0; pieces with -1 are never left out. Special tokens are
    recognised only in `literal` text, which comes from an admin or from the client itself.
    """

    text: str
    literal: bool = False
    turn: int = -1


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call in an earlier message of the model. `arguments` is JSON text."""

    name: str
    arguments: str
    id: str = ""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message for the model's chat template. `turn` is the same as in `Part`.

    A message with the role ``tool`` is the result of the call `call_id` of the tool `name`.
    `reasoning` is the thought that came before the content of a message of the model.
    """

    role: Role
    content: str
    turn: int = -1
    calls: list[Call] = []
    call_id: str = ""
    name: str = ""
    reasoning: str = ""


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A function that the model may call. `parameters` is a JSON schema as text."""

    name: str
    description: str = ""
    parameters: str = "{}"


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """The tools of a request. With `required`, the answer consists only of calls of these tools."""

    tools: list[Tool]
    required: bool = False
    parallel: bool = True


class TextPrompt(msgspec.Struct, frozen=True, tag="text"):
    """A prompt of ready-made text, from a profile's template or from the client."""

    parts: list[Part]


class ChatPrompt(msgspec.Struct, frozen=True, tag="chat"):
    """A prompt that the worker renders with the model's chat template.

    `variables` is a JSON object of further values for the template, such as ``enable_thinking``.
    """

    messages: list[Message]
    tools: Tools | None = None
    variables: str = "{}"
    ending: Ending = "answer"


class TokenPrompt(msgspec.Struct, frozen=True, tag="tokens"):
    """A prompt that the client has split into tokens itself."""

    tokens: list[int]


Prompt = TextPrompt | ChatPrompt | TokenPrompt
