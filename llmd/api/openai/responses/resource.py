"""``/v1/responses``: answers that the server keeps, to be named and continued."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

import falcon
import msgspec
from msgspec import Meta, Struct

from llmd.api import body
from llmd.api.access import caller_of
from llmd.api.openai.idempotency import Asking, outcome_of
from llmd.api.openai.messages import beside
from llmd.api.openai.request_fields import (
    MAX_TOKENS,
    ModelName,
    ResponseFormat,
    Sampled,
    SchemaFormat,
    without_ignored,
)
from llmd.api.openai.responses.events import ResponseForm
from llmd.api.openai.responses.input import (
    InputItem,
    ResponseTool,
    ResponseToolChoice,
    to_input,
    to_response_tools,
)
from llmd.api.openai.responses.reply import ResponseReply, TextFormat
from llmd.api.reply import send
from llmd.api.stream import Source, send_stream, take_whole
from llmd.chat.completions import Options
from llmd.chat.outcome import Outcome, Piece
from llmd.chat.responses import Naming, ResponseAsk, Responses
from llmd.chat.run import Run
from llmd.engine.protocol import Constraint
from llmd.errors import InvalidField


class TextFormatBody(Struct, frozen=True, kw_only=True, rename={"schema_": "schema"}):
    """What the answer must be: any text, a JSON object, or JSON by a schema."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str = ""
    schema_: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class TextBody(Struct, frozen=True, kw_only=True):
    """How the text of the answer must be."""

    format: TextFormatBody = TextFormatBody()
    verbosity: str | None = None


class ConversationBody(Struct, frozen=True, kw_only=True):
    """A session, by its id."""

    id: str


class ResponseBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to answer, and how. Fields left out are the model's (profile's)."""

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
        sampled = Sampled(
            model=self.model,
            max_tokens=self.max_output_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            response_format=_format(self.text),
        )
        wants_logprobs = "message.output_text.logprobs" in (self.include or [])
        return sampled.options(
            "", num_logprobs=(self.top_logprobs or 0) if wants_logprobs else None
        )

    def ask(self, constraint: Constraint | None) -> ResponseAsk:
        """Return what to answer. Raise `InvalidField` for what cannot be."""
        if self.background:
            raise InvalidField("background is not supported: stream instead", param="background")
        conversation = self.conversation
        tools = to_response_tools(
            self.tools or [],
            self.tool_choice,
            parallel=self.parallel_tool_calls is not False,
        )
        return ResponseAsk(
            input=to_input(self.input),
            instructions=self.instructions or "",
            tools=beside(tools, constraint),
            previous=self.previous_response_id,
            conversation=(
                conversation.id if isinstance(conversation, ConversationBody) else conversation
            ),
            store=self.store is not False,
            truncate=self.truncation == "auto",
        )


def _format(text: TextBody | None) -> ResponseFormat | None:
    if text is None:
        return None
    wanted = text.format
    if wanted.schema_ is None:
        return ResponseFormat(type=wanted.type)
    return ResponseFormat(type=wanted.type, json_schema=SchemaFormat(schema_=wanted.schema_))


class DeletedResponse(Struct, frozen=True, kw_only=True):
    """A response that is there no more."""

    id: str
    object: Literal["response"] = "response"
    deleted: bool = True


class ResponsesResource:
    """Answer within a conversation that the server keeps."""

    is_openai = True

    def __init__(self, responses: Responses, asking: Asking) -> None:
        self._responses = responses
        self._asking = asking

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer as a whole, or as a stream of events."""
        try:
            self._answer(req, resp)
        except InvalidField as error:
            raise InvalidField(error.message, param=_NAMES.get(error.param, error.param)) from None

    def _answer(self, req: falcon.Request, resp: falcon.Response) -> None:
        raw = body.read_raw(req)
        given = body.parse(raw)
        wanted = body.convert(_kept(given), ResponseBody)
        options = wanted.options()
        ask = wanted.ask(options.constraint)
        echo = _Echo(wanted, given)

        def start(owner: str, is_gone: Callable[[], bool]) -> Run:
            response_id, created_at = f"resp_{secrets.token_hex(20)}", int(time.time())
            begun = echo.reply(response_id, created_at)

            def render(outcome: Outcome) -> bytes:
                return msgspec.json.encode(begun.ended(outcome))

            naming = Naming(id=response_id, created_at=created_at, render=render)
            return self._responses.start(owner, ask, options, naming, is_gone)

        run = self._asking.run(req, raw, start)
        reply = echo.reply(run.id, run.created_at)
        if wanted.stream:
            source: Source[Piece] = run
            send_stream(req, resp, source, ResponseForm(reply, lambda: outcome_of(run)))
        else:
            take_whole(req, run)
            send(resp, reply.ended(outcome_of(run)))


class ResponseResource:
    """One response of the caller; another key's is as one that is not there."""

    is_openai = True

    def __init__(self, responses: Responses) -> None:
        self._responses = responses

    def on_get(self, req: falcon.Request, resp: falcon.Response, response_id: str) -> None:
        """Show it as it was answered."""
        resp.content_type = falcon.MEDIA_JSON
        resp.data = self._responses.get(caller_of(req).id, response_id)

    def on_delete(self, req: falcon.Request, resp: falcon.Response, response_id: str) -> None:
        """Take it back."""
        self._responses.delete(caller_of(req).id, response_id)
        send(resp, DeletedResponse(id=response_id))


_NAMES: dict[str | None, str] = {
    "max_tokens": "max_output_tokens",
    "response_format": "text",
    "session_id": "conversation",
}
"""What fields are called elsewhere, and here."""


class _Echo:
    """What a response tells again of its request."""

    def __init__(self, wanted: ResponseBody, given: Any) -> None:
        self._wanted = wanted
        self._given = given

    def reply(self, response_id: str, created_at: int) -> ResponseReply:
        """Return the response at its begin."""
        wanted, given = self._wanted, self._given
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


def _kept(given: object) -> object:
    """Return a body without what changes nothing; `store` and `metadata` do here."""
    kept = without_ignored(given)
    if isinstance(kept, dict) and isinstance(given, dict):
        named = {name: given[name] for name in ("store", "metadata") if name in given}
        return kept | named
    return kept
