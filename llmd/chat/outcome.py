"""What a generation says: its pieces as they come, and what it came to."""

from __future__ import annotations

from msgspec import Struct

from llmd.chat.usage import Timings, Usage
from llmd.engine.protocol import Delta, FinishReason, Reasoning, TokenLogprob


class ToolCall(Struct, frozen=True, kw_only=True):
    """A call that the model asks for. `arguments` is JSON text, unless it was cut off."""

    id: str
    name: str
    arguments: str


class CallPiece(Struct, frozen=True, kw_only=True):
    """A tool call begins (`name`), or goes on (`arguments`); `index` counts them from 0."""

    index: int
    id: str
    name: str
    arguments: str


Piece = Delta | Reasoning | CallPiece
"""What a reader of a run gets to see."""


class Outcome(Struct, frozen=True, kw_only=True):
    """What a generation came to. `num_turns` counts the old turns in its prompt."""

    text: str
    reasoning: str
    calls: list[ToolCall]
    logprobs: list[TokenLogprob]
    finish_reason: FinishReason
    model: str
    usage: Usage
    timings: Timings
    num_turns: int
