"""``/v1/chat/completions``: answer a conversation that the client sends."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import falcon
from msgspec import UNSET, Meta, Struct, UnsetType

from llmd.api import body
from llmd.api.access import Access
from llmd.api.openai.idempotency import IDEMPOTENCY_KEY, AnyRun, IdempotentRuns
from llmd.api.openai.messages import (
    ChatMessage,
    ContinueField,
    ToolBody,
    ToolChoiceField,
    template_variables,
    to_messages,
    to_tools,
    tools_unless_constrained,
    with_ending,
)
from llmd.api.openai.reply_parts import (
    DONE,
    FINGERPRINT,
    PROMPT_ERRORS,
    Finish,
    Logprobs,
    ToolCallReply,
    data_event,
    finish_of,
    logprobs_of,
    outcome_of,
    tool_calls_of,
)
from llmd.api.openai.request_fields import (
    CHAT_FIELDS,
    CONVERSATION_ID,
    GenerationFields,
    affinity_of,
    max_tokens_of,
    without_ignored,
)
from llmd.api.reply import send
from llmd.api.route import Operation
from llmd.api.stream import Source, send_stream, take_whole
from llmd.chat.completions import Completions, Conversation
from llmd.chat.outcome import CallPiece, Outcome, Piece, Usage
from llmd.engine.protocol import Constraint, Reasoning

EXAMPLE = [{"role": "user", "content": "Name a fruit."}]
"""Messages that the API's description shows as an example."""


class ChatBody(GenerationFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A conversation, and how to answer it. The profile sets the fields that are left out."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1, examples=[EXAMPLE])]
    max_completion_tokens: Annotated[int, Meta(ge=-1, le=1_000_000)] | None = None
    tools: list[ToolBody] | None = None
    tool_choice: ToolChoiceField | None = None
    parallel_tool_calls: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    continue_final_message: ContinueField | None = None
    add_generation_prompt: bool | None = None

    def changes(self) -> dict[str, Any]:
        """Return the profile's fields that this body sets."""
        values = super().changes()
        if self.max_completion_tokens is not None:
            values["max_tokens"] = max_tokens_of(
                self.max_completion_tokens, "max_completion_tokens"
            )
        return values


class ReplyMessage(Struct, frozen=True, kw_only=True):
    """The message that the model wrote."""

    content: str | None
    role: Literal["assistant"] = "assistant"
    refusal: None = None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallReply] | UnsetType = UNSET


class ChatChoice(Struct, frozen=True, kw_only=True):
    """One answer, and why it ended."""

    message: ReplyMessage
    finish_reason: Finish
    index: int = 0
    logprobs: Logprobs | None = None


class ChatReply(Struct, frozen=True, kw_only=True):
    """The answer to a conversation."""

    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    object: Literal["chat.completion"] = "chat.completion"
    system_fingerprint: str = FINGERPRINT


CHAT = {
    "POST": Operation(
        summary="Answer a conversation, optionally with tools or in a given format",
        access=Access.USER,
        body=ChatBody,
        reply=ChatReply,
        stream="Chunks (`chat.completion.chunk`) as `data:` events, ended by `data: [DONE]`.",
        headers=(IDEMPOTENCY_KEY, CONVERSATION_ID),
        errors=PROMPT_ERRORS,
    )
}


class ChatResource:
    """The resource that answers a conversation which the client sends whole."""

    is_openai = True

    def __init__(self, completions: Completions, runs: IdempotentRuns) -> None:
        self._completions = completions
        self._runs = runs

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Send the answer whole, or as a stream of chunks."""
        raw = body.read_raw(req)
        wanted = body.convert(without_ignored(body.parse(raw), used=CHAT_FIELDS), ChatBody)
        options = wanted.options(
            affinity_of(req, wanted.user),
            num_logprobs=(wanted.top_logprobs or 0) if wanted.logprobs else None,
        )
        conversation = _conversation(wanted, options.constraint)
        run = self._runs.start_or_join(
            req,
            raw,
            lambda owner, is_gone: self._completions.start(owner, conversation, options, is_gone),
        )
        if wanted.stream:
            chunks = ChatChunks(
                run,
                wanted.model,
                with_usage=wanted.includes_usage,
                with_logprobs=bool(wanted.logprobs),
            )
            source: Source[Piece] = run
            send_stream(req, resp, source, chunks)
        else:
            take_whole(req, run)
            send(resp, _reply(wanted, run))


def _conversation(wanted: ChatBody, constraint: Constraint | None) -> Conversation:
    tools = to_tools(
        [tool.function for tool in wanted.tools or []],
        wanted.tool_choice,
        parallel=wanted.parallel_tool_calls is not False,
    )
    messages, ending = with_ending(
        to_messages(wanted.messages), wanted.continue_final_message, wanted.add_generation_prompt
    )
    return Conversation(
        messages=messages,
        tools=tools_unless_constrained(tools, constraint),
        variables=template_variables(wanted.chat_template_kwargs, wanted.reasoning_effort),
        ending=ending,
    )


def _reply(wanted: ChatBody, run: AnyRun) -> ChatReply:
    outcome = outcome_of(run)
    return ChatReply(
        id=f"chatcmpl-{run.id}",
        created=run.created_at,
        model=wanted.model,
        usage=outcome.usage,
        choices=[
            ChatChoice(
                message=_message(outcome),
                finish_reason=finish_of(outcome.finish_reason),
                logprobs=logprobs_of(outcome.logprobs) if wanted.logprobs else None,
            )
        ],
    )


def _message(outcome: Outcome) -> ReplyMessage:
    return ReplyMessage(
        content=outcome.text or (None if outcome.calls else ""),
        reasoning_content=outcome.reasoning or UNSET,
        tool_calls=tool_calls_of(outcome.calls),
    )


class ChatChunks:
    """An answer as chunks: the role, the pieces, the finish reason and, on request, the usage."""

    def __init__(self, run: AnyRun, model: str, *, with_usage: bool, with_logprobs: bool) -> None:
        self._run = run
        self._with_usage = with_usage
        self._with_logprobs = with_logprobs
        self._head = {
            "id": f"chatcmpl-{run.id}",
            "object": "chat.completion.chunk",
            "created": run.created_at,
            "model": model,
            "system_fingerprint": FINGERPRINT,
        }

    def begin(self) -> bytes:
        """Return the first chunk, which has the assistant's role."""
        return self._chunk({"role": "assistant", "content": None})

    def piece(self, piece: Piece) -> bytes:
        """Return the chunk of a piece; no bytes if it has neither text nor log probabilities."""
        if isinstance(piece, CallPiece):
            return self._chunk({"tool_calls": [_call_delta(piece)]})
        if isinstance(piece, Reasoning):
            return self._chunk({"reasoning_content": piece.text})
        delta = {"content": piece.text} if piece.text else {}
        if not delta and not piece.logprobs:
            return b""
        logprobs = logprobs_of(piece.logprobs) if self._with_logprobs else None
        return self._chunk(delta, logprobs=logprobs)

    def end(self) -> bytes:
        """Return the finish reason's chunk, the usage if requested, and the end mark."""
        outcome = outcome_of(self._run)
        last = self._chunk({}, finish_reason=finish_of(outcome.finish_reason))
        # Sent only on request: some clients fail on a chunk without choices.
        usage = data_event(self._head | {"choices": [], "usage": outcome.usage})
        return last + (usage if self._with_usage else b"") + DONE

    def error(self, body: dict[str, object]) -> bytes:
        """Return the event of an error."""
        return data_event(body)

    def _chunk(
        self,
        delta: dict[str, Any],
        *,
        finish_reason: Finish | None = None,
        logprobs: Logprobs | None = None,
    ) -> bytes:
        choice = {
            "index": 0,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }
        return data_event(self._head | {"choices": [choice]})


def _call_delta(piece: CallPiece) -> dict[str, Any]:
    """Return the delta of a tool call.

    The first piece of a call has its id and name, the others have only arguments.
    """
    if not piece.name:
        return {"index": piece.index, "function": {"arguments": piece.arguments}}
    return {
        "index": piece.index,
        "id": piece.id,
        "type": "function",
        "function": {"name": piece.name, "arguments": piece.arguments},
    }
