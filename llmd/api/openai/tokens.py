"""``/tokenize``, ``/detokenize`` and ``/apply-template`` of llama.cpp's server."""

from __future__ import annotations

from typing import Annotated, Any

import falcon
from msgspec import Meta, Struct

from llmd.api import body
from llmd.api.access import Access, is_gone
from llmd.api.openai.chat import EXAMPLE
from llmd.api.openai.messages import (
    ChatMessage,
    ContinueField,
    ToolBody,
    ToolChoiceField,
    template_variables,
    to_messages,
    to_tools,
    with_ending,
)
from llmd.api.openai.request_fields import CHAT_FIELDS, without_ignored
from llmd.api.openai.text_inputs import TokenId
from llmd.api.reply import send
from llmd.api.route import Operation
from llmd.chat.queries import Queries
from llmd.engine.protocol import ChatPrompt
from llmd.errors import EngineDied, EngineFailed, EngineLoading, InvalidField

_QUERY_ERRORS = (InvalidField, EngineLoading, EngineFailed, EngineDied)
"""Error responses of the operations that ask the worker without generating text."""


class TokenizeBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A text. `add_special` prepends the model's beginning-of-text token."""

    content: Annotated[str, Meta(examples=["Hello world"])]
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False
    model: str | None = None


class TokenPiece(Struct, frozen=True, kw_only=True):
    """A token with its text, or with its bytes if they are not valid UTF-8."""

    id: int
    piece: str | list[int]


class TokenizeReply(Struct, frozen=True, kw_only=True):
    """The tokens of a text: ids, or ids with their pieces."""

    tokens: list[int | TokenPiece]


class DetokenizeBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Token ids of the loaded model."""

    tokens: Annotated[list[TokenId], Meta(max_length=1_000_000, examples=[[19556, 905]])]
    model: str | None = None


class DetokenizeReply(Struct, frozen=True, kw_only=True):
    """The text that the tokens spell."""

    content: str


class ApplyTemplateBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A conversation as in `/v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1, examples=[EXAMPLE])]
    tools: list[ToolBody] | None = None
    tool_choice: ToolChoiceField | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    continue_final_message: ContinueField | None = None
    add_generation_prompt: bool | None = None
    model: str | None = None


class ApplyTemplateReply(Struct, frozen=True, kw_only=True):
    """The prompt that the model's chat template renders."""

    prompt: str


TOKENIZE = {
    "POST": Operation(
        summary="Split a text into the loaded model's tokens",
        access=Access.USER,
        body=TokenizeBody,
        reply=TokenizeReply,
        errors=_QUERY_ERRORS,
    )
}
DETOKENIZE = {
    "POST": Operation(
        summary="Join tokens into a text",
        access=Access.USER,
        body=DetokenizeBody,
        reply=DetokenizeReply,
        errors=_QUERY_ERRORS,
    )
}
APPLY_TEMPLATE = {
    "POST": Operation(
        summary="Show the prompt that the model's chat template renders",
        access=Access.USER,
        body=ApplyTemplateBody,
        reply=ApplyTemplateReply,
        errors=_QUERY_ERRORS,
    )
}


class TokenizeResource:
    """The resource that splits a text into tokens."""

    is_openai = True

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Send the tokens."""
        wanted = body.read(req, TokenizeBody)
        tokens = self._queries.tokenize(
            wanted.content,
            lambda: is_gone(req),
            begin=wanted.add_special,
            parse_special=wanted.parse_special,
        )
        found: list[int | TokenPiece] = [
            TokenPiece(id=token, piece=_text_or_bytes(piece)) if wanted.with_pieces else token
            for token, piece in tokens
        ]
        send(resp, TokenizeReply(tokens=found))


def _text_or_bytes(piece: bytes) -> str | list[int]:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)


class DetokenizeResource:
    """The resource that joins tokens into a text."""

    is_openai = True

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Send the text."""
        wanted = body.read(req, DetokenizeBody)
        text = self._queries.detokenize(wanted.tokens, lambda: is_gone(req))
        send(resp, DetokenizeReply(content=text))


class ApplyTemplateResource:
    """The resource that renders a conversation's prompt."""

    is_openai = True

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Send the prompt."""
        raw = body.parse(body.read_raw(req))
        wanted = body.convert(without_ignored(raw, used=CHAT_FIELDS), ApplyTemplateBody)
        tools = to_tools(
            [tool.function for tool in wanted.tools or []], wanted.tool_choice, parallel=True
        )
        messages, ending = with_ending(
            to_messages(wanted.messages),
            wanted.continue_final_message,
            wanted.add_generation_prompt,
        )
        variables = template_variables(wanted.chat_template_kwargs, wanted.reasoning_effort)
        prompt = ChatPrompt(messages, tools, variables, ending)
        send(resp, ApplyTemplateReply(prompt=self._queries.render(prompt, lambda: is_gone(req))))
