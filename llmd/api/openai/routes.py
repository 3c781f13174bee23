"""The table of OpenAI's routes, with those of llama.cpp's server that its clients use."""

from __future__ import annotations

from llmd.api.openai.chat import CHAT, ChatResource
from llmd.api.openai.completions import COMPLETION, CompletionResource
from llmd.api.openai.embeddings import EMBEDDING, EmbeddingResource
from llmd.api.openai.idempotency import IdempotentRuns
from llmd.api.openai.models import (
    MODEL_LIST,
    MODEL_OBJECT,
    ModelListResource,
    ModelObjectResource,
)
from llmd.api.openai.responses.resource import (
    RESPONSE,
    RESPONSES,
    ResponseResource,
    ResponsesResource,
)
from llmd.api.openai.tokens import (
    APPLY_TEMPLATE,
    DETOKENIZE,
    TOKENIZE,
    ApplyTemplateResource,
    DetokenizeResource,
    TokenizeResource,
)
from llmd.api.route import Route
from llmd.api.services import Services


def openai_routes(services: Services) -> list[Route]:
    """Return the routes of OpenAI's API and of llama.cpp's server."""
    s = services
    runs = IdempotentRuns(s.retries)
    return [
        Route(
            "/v1/chat/completions",
            ChatResource(s.completions, runs),
            CHAT,
            tag="OpenAI",
            aliases=("/chat/completions",),
        ),
        Route(
            "/v1/completions",
            CompletionResource(s.completions, runs),
            COMPLETION,
            tag="OpenAI",
            aliases=("/completions",),
        ),
        Route("/v1/responses", ResponsesResource(s.responses, runs), RESPONSES, tag="OpenAI"),
        Route("/v1/responses/{response_id}", ResponseResource(s.responses), RESPONSE, tag="OpenAI"),
        Route(
            "/v1/embeddings",
            EmbeddingResource(s.embeddings, s.models),
            EMBEDDING,
            tag="OpenAI",
            aliases=("/embeddings",),
        ),
        Route("/v1/models", ModelListResource(s.models), MODEL_LIST, tag="OpenAI"),
        Route(
            "/v1/models/{model_id:path}", ModelObjectResource(s.models), MODEL_OBJECT, tag="OpenAI"
        ),
        Route("/tokenize", TokenizeResource(s.queries), TOKENIZE, tag="Tokens"),
        Route("/detokenize", DetokenizeResource(s.queries), DETOKENIZE, tag="Tokens"),
        Route("/apply-template", ApplyTemplateResource(s.queries), APPLY_TEMPLATE, tag="Tokens"),
    ]
