"""OpenAI's client for the daemon. Every answer is checked by the client's own types."""

from __future__ import annotations

from typing import Any, TypeVar

from openai import BaseModel, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageParam

from tests.e2e.client import HOST
from tests.e2e.daemon import Daemon

MODEL = "quick"
"""The profile that the tests use: temperature 0, `NUM_TOKENS` tokens by default."""

NUM_TOKENS = 8

FRANCE = "What is the capital of France? Answer in one word."
STORY = "Write a long story about a lighthouse keeper and the sea."

Said = str | list[ChatCompletionMessageParam]

_Model = TypeVar("_Model", bound=BaseModel)


def base_url(daemon: Daemon) -> str:
    """Return the base URL that a client of OpenAI's API is set to."""
    return f"http://{HOST}:{daemon.port}/v1"


def connect(daemon: Daemon, key: str | None = None) -> OpenAI:
    """Return a client that does not retry."""
    return OpenAI(
        base_url=base_url(daemon),
        api_key=key or daemon.key,
        max_retries=0,
    )


def new_key(daemon: Daemon, name: str) -> str:
    """Create a user's key and return it."""
    return str(daemon.client.call("POST", "/auth/key", {"name": name}).body["key"])


def checked(answer: _Model) -> _Model:
    """Return an answer validated strictly: the client itself accepts any fields."""
    return type(answer).model_validate(answer.to_dict(mode="json"))


def messages(said: Said) -> list[ChatCompletionMessageParam]:
    """Return the messages of a conversation; a text alone is a user's message."""
    return [{"role": "user", "content": said}] if isinstance(said, str) else said


def ask(client: OpenAI, said: Said, *, model: str = MODEL, **options: Any) -> ChatCompletion:
    """Return the whole answer."""
    answer = client.chat.completions.create(model=model, messages=messages(said), **options)
    assert isinstance(answer, ChatCompletion)
    return checked(answer)


def content_of(answer: ChatCompletion) -> str:
    """Return the text of an answer's only choice."""
    (choice,) = answer.choices
    assert choice.message.content is not None
    return choice.message.content


def stream(client: OpenAI, said: Said, **options: Any) -> list[ChatCompletionChunk]:
    """Return all chunks of a streamed answer."""
    with client.chat.completions.create(
        model=MODEL, messages=messages(said), stream=True, **options
    ) as chunks:
        return [checked(chunk) for chunk in chunks]


def joined(chunks: list[ChatCompletionChunk]) -> str:
    """Return the text of all chunks, joined."""
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
