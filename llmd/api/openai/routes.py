"""The routes that clients made for OpenAI's API call, and llama.cpp's own beside them."""

from __future__ import annotations

from llmd.api.access import Access
from llmd.api.openai.chat import ChatBody, ChatReply, ChatResource
from llmd.api.openai.completions import CompletionBody, CompletionReply, CompletionResource
from llmd.api.openai.embeddings import EmbeddingBody, EmbeddingReply, EmbeddingResource
from llmd.api.openai.idempotency import Asking
from llmd.api.openai.models import ModelList, ModelListResource, ModelObject, ModelObjectResource
from llmd.api.openai.responses.reply import ResponseReply
from llmd.api.openai.responses.resource import (
    DeletedResponse,
    ResponseBody,
    ResponseResource,
    ResponsesResource,
)
from llmd.api.openai.tokens import (
    ApplyTemplateBody,
    ApplyTemplateReply,
    ApplyTemplateResource,
    DetokenizeBody,
    DetokenizeReply,
    DetokenizeResource,
    TokenizeBody,
    TokenizeReply,
    TokenizeResource,
)
from llmd.api.route import Operation, Parameter, Route
from llmd.api.services import Services
from llmd.errors import (
    Conflict,
    EngineDied,
    EngineFailed,
    EngineLoading,
    InvalidField,
    PromptTooLong,
    StoreFull,
    UnknownModel,
    UnknownResponse,
)

_HEADERS = (
    Parameter(
        "Idempotency-Key",
        "The same key with the same body gets the same answer for some minutes.",
        {"type": "string", "minLength": 1, "maxLength": 256},
    ),
    Parameter(
        "X-Conversation-Id",
        "Which conversation this is of, so that the model finds what it has kept of it warm.",
        {"type": "string", "maxLength": 256},
    ),
)
_ASKS = (InvalidField, EngineLoading, EngineFailed, EngineDied)
_GENERATES = (Conflict, InvalidField, PromptTooLong, UnknownModel)


def openai_routes(services: Services) -> list[Route]:
    """Return these routes."""
    s = services
    asking = Asking(s.retries)
    user = Access.USER
    return [
        Route(
            "/v1/chat/completions",
            ChatResource(s.completions, asking),
            {
                "POST": Operation(
                    summary="Answer a conversation, with tools or in a form if wished",
                    access=user,
                    body=ChatBody,
                    reply=ChatReply,
                    stream="Chunks (`chat.completion.chunk`) as `data:`, the last `data: [DONE]`.",
                    headers=_HEADERS,
                    errors=_GENERATES,
                )
            },
            tag="OpenAI",
            aliases=("/chat/completions",),
        ),
        Route(
            "/v1/completions",
            CompletionResource(s.completions, asking),
            {
                "POST": Operation(
                    summary="Go on with a text, as it is",
                    access=user,
                    body=CompletionBody,
                    reply=CompletionReply,
                    stream="Chunks as `data:`, the last `data: [DONE]`.",
                    headers=_HEADERS,
                    errors=_GENERATES,
                )
            },
            tag="OpenAI",
            aliases=("/completions",),
        ),
        Route(
            "/v1/responses",
            ResponsesResource(s.responses, asking),
            {
                "POST": Operation(
                    summary="Answer within a conversation that the server keeps",
                    access=user,
                    body=ResponseBody,
                    reply=ResponseReply,
                    stream="Typed events from `response.created` to `response.completed`.",
                    headers=_HEADERS[:1],
                    errors=(*_GENERATES, UnknownResponse, StoreFull),
                )
            },
            tag="OpenAI",
        ),
        Route(
            "/v1/responses/{response_id}",
            ResponseResource(s.responses),
            {
                "GET": Operation(
                    summary="Show a response",
                    access=user,
                    reply=ResponseReply,
                    errors=(UnknownResponse,),
                ),
                "DELETE": Operation(
                    summary="Delete a response; its turn too, if it is its session's last",
                    access=user,
                    reply=DeletedResponse,
                    errors=(UnknownResponse, StoreFull),
                ),
            },
            tag="OpenAI",
        ),
        Route(
            "/v1/embeddings",
            EmbeddingResource(s.embeddings, s.models),
            {
                "POST": Operation(
                    summary="Make vectors of texts",
                    access=user,
                    body=EmbeddingBody,
                    reply=EmbeddingReply,
                    errors=_GENERATES,
                )
            },
            tag="OpenAI",
            aliases=("/embeddings",),
        ),
        Route(
            "/v1/models",
            ModelListResource(s.models),
            {
                "GET": Operation(
                    summary="List what can be named as a model: profiles and GGUF files",
                    access=user,
                    reply=ModelList,
                )
            },
            tag="OpenAI",
        ),
        Route(
            "/v1/models/{model_id:path}",
            ModelObjectResource(s.models),
            {
                "GET": Operation(
                    summary="Show one of them",
                    access=user,
                    reply=ModelObject,
                    errors=(UnknownModel,),
                )
            },
            tag="OpenAI",
        ),
        *_token_routes(services),
    ]


def _token_routes(services: Services) -> list[Route]:
    queries, user = services.queries, Access.USER
    return [
        Route(
            "/tokenize",
            TokenizeResource(queries),
            {
                "POST": Operation(
                    summary="Cut a text into the loaded model's tokens",
                    access=user,
                    body=TokenizeBody,
                    reply=TokenizeReply,
                    errors=_ASKS,
                )
            },
            tag="Tokens",
        ),
        Route(
            "/detokenize",
            DetokenizeResource(queries),
            {
                "POST": Operation(
                    summary="Join tokens to a text",
                    access=user,
                    body=DetokenizeBody,
                    reply=DetokenizeReply,
                    errors=_ASKS,
                )
            },
            tag="Tokens",
        ),
        Route(
            "/apply-template",
            ApplyTemplateResource(queries),
            {
                "POST": Operation(
                    summary="Show the prompt that the model's chat template makes",
                    access=user,
                    body=ApplyTemplateBody,
                    reply=ApplyTemplateReply,
                    errors=_ASKS,
                )
            },
            tag="Tokens",
        ),
    ]
