"""The response object that is sent and stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from msgspec import Struct

from llmd.api.openai.reply_parts import Logprob, logprobs_of
from llmd.chat.outcome import Outcome, ToolCall, Usage
from llmd.engine.protocol import TokenLogprob

Status = Literal["in_progress", "completed", "incomplete", "cancelled"]


class OutputText(Struct, frozen=True, kw_only=True, tag_field="type", tag="output_text"):
    """A part of a message: text of the answer."""

    text: str
    annotations: list[Any] = []
    logprobs: list[Logprob] = []


class ReasoningText(Struct, frozen=True, kw_only=True, tag_field="type", tag="reasoning_text"):
    """A part of a reasoning item: text of the model's reasoning."""

    text: str


class OutputItem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message, the model's reasoning, or a function call, depending on `type`."""

    id: str
    type: str
    status: str = ""
    role: str = ""
    content: list[OutputText | ReasoningText] | None = None
    summary: list[Any] | None = None
    call_id: str = ""
    name: str = ""
    arguments: str | None = None


class InputDetails(Struct, frozen=True, kw_only=True):
    """Prompt tokens that were reused. `cache_write_tokens` is always 0: caching is not billed."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(Struct, frozen=True, kw_only=True):
    """Tokens of the reasoning: always 0, since they are not counted separately."""

    reasoning_tokens: int = 0


class ResponseUsage(Struct, frozen=True, kw_only=True):
    """Numbers of tokens, by the names that this route uses."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class Incomplete(Struct, frozen=True, kw_only=True):
    """Why a response is incomplete."""

    reason: str


def usage_of(usage: Usage) -> ResponseUsage:
    """Return numbers of tokens by the names that this route uses."""
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=InputDetails(cached_tokens=usage.prompt_tokens_details.cached_tokens),
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputDetails(),
        total_tokens=usage.total_tokens,
    )


def status_of(outcome: Outcome) -> Status:
    """Return how a response ended."""
    if outcome.finish_reason == "cancelled":
        return "cancelled"
    return "incomplete" if outcome.finish_reason == "length" else "completed"


class TextFormat(Struct, frozen=True, kw_only=True):
    """The format of the answer."""

    format: dict[str, Any]


class ResponseReply(Struct, frozen=True, kw_only=True):
    """A response, which later requests can name and continue."""

    id: str
    created_at: int
    status: Status
    model: str
    output: list[OutputItem]
    object: Literal["response"] = "response"
    error: None = None
    incomplete_details: Incomplete | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    metadata: dict[str, str] = {}
    parallel_tool_calls: bool = True
    previous_response_id: str | None = None
    conversation: dict[str, str] | None = None
    store: bool = True
    temperature: float | None = None
    top_p: float | None = None
    text: TextFormat = TextFormat(format={"type": "text"})
    tool_choice: Any = "auto"
    tools: list[dict[str, Any]] = []
    truncation: Literal["auto", "disabled"] = "disabled"
    user: str | None = None
    usage: ResponseUsage | None = None

    def ended(self, outcome: Outcome) -> ResponseReply:
        """Return this response with the outcome of its run."""
        status = status_of(outcome)
        reason = Incomplete(reason="max_output_tokens") if status == "incomplete" else None
        return msgspec.structs.replace(
            self,
            status=status,
            incomplete_details=reason,
            output=list(_items(self.id, outcome)),
            usage=usage_of(outcome.usage),
        )


def _items(response_id: str, outcome: Outcome) -> Iterator[OutputItem]:
    """Yield the reasoning, the message and the function calls of an answer.

    If the answer was cut off, its last item is incomplete.
    """
    cut = "incomplete" if outcome.finish_reason == "length" else "completed"
    if outcome.reasoning:
        yield _reasoning(response_id, outcome.reasoning)
    if outcome.text or not outcome.calls:
        status = "completed" if outcome.calls else cut
        yield _message(response_id, outcome.text, outcome.logprobs, status)
    for index, call in enumerate(outcome.calls, 1):
        status = cut if index == len(outcome.calls) else "completed"
        yield _call(response_id, index - 1, call, status)


def _reasoning(response_id: str, text: str) -> OutputItem:
    return OutputItem(
        id=f"rs_{response_id}", type="reasoning", summary=[], content=[ReasoningText(text=text)]
    )


def _message(response_id: str, text: str, logprobs: list[TokenLogprob], status: str) -> OutputItem:
    part = OutputText(text=text, logprobs=logprobs_of(logprobs).content)
    return OutputItem(
        id=f"msg_{response_id}", type="message", role="assistant", status=status, content=[part]
    )


def _call(response_id: str, index: int, call: ToolCall, status: str) -> OutputItem:
    return OutputItem(
        id=f"fc_{response_id}_{index}",
        type="function_call",
        status=status,
        call_id=call.id,
        name=call.name,
        arguments=call.arguments,
    )
