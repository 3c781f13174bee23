"""``/v1/responses``: create, show and delete responses, which the server stores."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

import falcon
import msgspec
from msgspec import Meta, Struct

from llmd.api import body
from llmd.api.access import Access, caller_of
from llmd.api.openai.idempotency import IDEMPOTENCY_KEY, IdempotentRuns
from llmd.api.openai.messages import template_variables, tools_unless_constrained
from llmd.api.openai.reply_parts import PROMPT_ERRORS, outcome_of
from llmd.api.openai.request_fields import (
    MAX_TOKENS,
    GenerationFields,
    ModelName,
    ResponseFormat,
    SchemaFormat,
    without_ignored,
)
from llmd.api.openai.responses.events import ResponseEvents
from llmd.api.openai.responses.input import (
    InputItem,
    ResponseTool,
    ResponseToolChoice,
    read_input,
    read_tools,
)
from llmd.api.openai.responses.reply import ResponseReply, TextFormat
from llmd.api.reply import send
from llmd.api.route import Operation
from llmd.api.stream import Source, send_stream, take_whole
from llmd.chat.completions import Options
from llmd.chat.outcome import Outcome, Piece
from llmd.chat.responses import Naming, ResponseAsk, Responses
from llmd.chat.run import Run
from llmd.engine.protocol import Constraint
from llmd.errors import InvalidField, StoreFull, UnknownResponse


class TextFormatBody(Struct, frozen=True, kw_only=True, rename={"schema_": "schema"}):
    """The format of the answer: any text, a JSON object, or JSON that follows a schema."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str = ""
    schema_: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class TextBody(Struct, frozen=True, kw_only=True):
    """Options for the text of the answer."""

    format: TextFormatBody = TextFormatBody()
    verbosity: str | None = None


class ConversationBody(Struct, frozen=True, kw_only=True):
    """A session, by its id."""

    id: str


class ResponseBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a request for an answer. The profile sets the fields that are left out."""

    model: ModelName
    input: Annotated[str | list[InputItem], Meta(examples=["Name a fruit."])]
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: str | ConversationBody | None = None
    store: bool | None = None
    stream: bool | None = False
    stream_options: dict[str, Any] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=MAX_TOKENS)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    include: list[str] | None = None
    text: TextBody | None = None
    tools: list[ResponseTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ResponseToolChoice | None = None
    parallel_tool_calls: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: dict[str, str] | None = None
    reasoning: dict[str, Any] | None = None
    background: bool | None = None
    max_tool_calls: int | None = None
    user: str | None = None

    def options(self) -> Options:
        """Return how to answer."""
        fields = GenerationFields(
            model=self.model,
            max_tokens=self.max_output_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            response_format=_format(self.text),
        )
        wants_logprobs = "message.output_text.logprobs" in (self.include or [])
        return fields.options("", num_logprobs=(self.top_logprobs or 0) if wants_logprobs else None)

    def ask(self, constraint: Constraint | None) -> ResponseAsk:
        """Return what to answer. Raise `InvalidField` for values that are not supported."""
        if self.background:
            raise InvalidField("background is not supported: stream instead", param="background")
        conversation = self.conversation
        tools = read_tools(
            self.tools or [],
            self.tool_choice,
            parallel=self.parallel_tool_calls is not False,
        )
        return ResponseAsk(
            input=read_input(self.input),
            instructions=self.instructions or "",
            tools=tools_unless_constrained(tools, constraint),
            variables=template_variables(None, self._effort()),
            previous=self.previous_response_id,
            conversation=(
                conversation.id if isinstance(conversation, ConversationBody) else conversation
            ),
            store=self.store is not False,
            truncate=self.truncation == "auto",
        )

    def _effort(self) -> str | None:
        """Return the wanted effort of the reasoning, if there is one."""
        effort = (self.reasoning or {}).get("effort")
        return effort if isinstance(effort, str) else None


def _format(text: TextBody | None) -> ResponseFormat | None:
    if text is None:
        return None
    wanted = text.format
    if wanted.schema_ is None:
        return ResponseFormat(type=wanted.type)
    return ResponseFormat(type=wanted.type, json_schema=SchemaFormat(schema_=wanted.schema_))


class DeletedResponse(Struct, frozen=True, kw_only=True):
    """The confirmation that a response was deleted."""

    id: str
    object: Literal["response"] = "response"
    deleted: bool = True


RESPONSES = {
    "POST": Operation(
        summary="Create a response, in a conversation that the server stores",
        access=Access.USER,
        body=ResponseBody,
        reply=ResponseReply,
        stream="Typed events from `response.created` to `response.completed`.",
        headers=(IDEMPOTENCY_KEY,),
        errors=(*PROMPT_ERRORS, UnknownResponse, StoreFull),
    )
}
RESPONSE = {
    "GET": Operation(
        summary="Show a response",
        access=Access.USER,
        reply=ResponseReply,
        errors=(UnknownResponse,),
    ),
    "DELETE": Operation(
        summary="Delete a response, and its turn if that is the last of its session",
        access=Access.USER,
        reply=DeletedResponse,
        errors=(UnknownResponse, StoreFull),
    ),
}


class ResponsesResource:
    """The resource that creates responses."""

    is_openai = True

    def __init__(self, responses: Responses, runs: IdempotentRuns) -> None:
        self._responses = responses
        self._runs = runs

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Send the response whole, or as a stream of events."""
        try:
            self._answer(req, resp)
        except InvalidField as error:
            raise InvalidField(
                error.message, param=_FIELD_NAMES.get(error.param, error.param)
            ) from None

    def _answer(self, req: falcon.Request, resp: falcon.Response) -> None:
        raw = body.read_raw(req)
        given = body.parse(raw)
        wanted = body.convert(_without_ignored(given), ResponseBody)
        options = wanted.options()
        ask = wanted.ask(options.constraint)

        def start(owner: str, is_gone: Callable[[], bool]) -> Run:
            response_id, created_at = f"resp_{secrets.token_hex(20)}", int(time.time())
            begun = _reply_at_start(wanted, given, response_id, created_at)

            def render(outcome: Outcome) -> bytes:
                return msgspec.json.encode(begun.ended(outcome))

            naming = Naming(id=response_id, created_at=created_at, render=render)
            return self._responses.start(owner, ask, options, naming, is_gone)

        run = self._runs.start_or_join(req, raw, start)
        reply = _reply_at_start(wanted, given, run.id, run.created_at)
        if wanted.stream:
            source: Source[Piece] = run
            send_stream(req, resp, source, ResponseEvents(reply, lambda: outcome_of(run)))
        else:
            take_whole(req, run)
            send(resp, reply.ended(outcome_of(run)))


class ResponseResource:
    """The resource of one response. A response of another key counts as unknown."""

    is_openai = True

    def __init__(self, responses: Responses) -> None:
        self._responses = responses

    def on_get(self, req: falcon.Request, resp: falcon.Response, response_id: str) -> None:
        """Send the response as it was first sent."""
        resp.content_type = falcon.MEDIA_JSON
        resp.data = self._responses.get(caller_of(req).id, response_id)

    def on_delete(self, req: falcon.Request, resp: falcon.Response, response_id: str) -> None:
        """Delete the response."""
        self._responses.delete(caller_of(req).id, response_id)
        send(resp, DeletedResponse(id=response_id))


_FIELD_NAMES: dict[str | None, str] = {
    "max_tokens": "max_output_tokens",
    "response_format": "text",
    "session_id": "conversation",
}
"""The names that fields have on this route, by their names elsewhere."""


def _reply_at_start(
    wanted: ResponseBody, given: Any, response_id: str, created_at: int
) -> ResponseReply:
    """Return the response before its first token, with the request's fields repeated."""
    conversation = given.get("conversation")
    text = given.get("text") or {}
    return ResponseReply(
        id=response_id,
        created_at=created_at,
        status="in_progress",
        model=wanted.model,
        output=[],
        instructions=wanted.instructions,
        max_output_tokens=wanted.max_output_tokens,
        metadata=wanted.metadata or {},
        parallel_tool_calls=wanted.parallel_tool_calls is not False,
        previous_response_id=wanted.previous_response_id,
        conversation=({"id": conversation} if isinstance(conversation, str) else conversation),
        store=wanted.store is not False,
        temperature=wanted.temperature,
        top_p=wanted.top_p,
        text=TextFormat(format=text.get("format") or {"type": "text"}),
        tool_choice=given.get("tool_choice") or "auto",
        tools=given.get("tools") or [],
        truncation=wanted.truncation or "disabled",
        user=wanted.user,
    )


def _without_ignored(given: object) -> object:
    """Return a body without the fields that have no effect. `store` and `metadata` have one."""
    kept = without_ignored(given)
    if isinstance(kept, dict) and isinstance(given, dict):
        named = {name: given[name] for name in ("store", "metadata") if name in given}
        return kept | named
    return kept
