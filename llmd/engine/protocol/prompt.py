"""What a model is asked: a text that is made already, or messages for its own chat template."""

from __future__ import annotations

from typing import Literal

import msgspec

Role = Literal["system", "user", "assistant", "tool"]


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a prompt: `turn` counts the old turns from 0, or is -1 for what always stays.

    Only `literal` text, an admin's, may spell special tokens; all else is inserted text.
    """

    text: str
    literal: bool = False
    turn: int = -1


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call that the model made in an earlier message. `arguments` is JSON text."""

    name: str
    arguments: str
    id: str = ""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message for the model's own chat template: `turn` as in `Part`.

    A message of the role ``tool`` answers the call `call_id`, which was of the tool `name`.
    """

    role: Role
    content: str
    turn: int = -1
    calls: list[Call] = []
    call_id: str = ""
    name: str = ""


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A function that the model may ask to be called. `parameters` is a JSON schema as text."""

    name: str
    description: str = ""
    parameters: str = "{}"


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """The tools of a request. With `required` the answer is calls alone, of these tools."""

    tools: list[Tool]
    required: bool = False
    parallel: bool = True


class TextPrompt(msgspec.Struct, frozen=True, tag="text"):
    """A prompt whose text is made already, from a profile's template or by the client."""

    parts: list[Part]


class ChatPrompt(msgspec.Struct, frozen=True, tag="chat"):
    """A prompt that the worker renders by the model's own chat template.

    `variables` is a JSON object of further values for the template, such as ``enable_thinking``.
    """

    messages: list[Message]
    tools: Tools | None = None
    variables: str = "{}"


class TokenPrompt(msgspec.Struct, frozen=True, tag="tokens"):
    """A prompt whose tokens the client made itself."""

    tokens: list[int]


Prompt = TextPrompt | ChatPrompt | TokenPrompt
