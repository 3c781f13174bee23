"""Fields and headers that several of OpenAI's routes share, and their conversion to options."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import falcon
import msgspec
from msgspec import Meta, Struct

from llmd.api.route import Parameter
from llmd.chat.completions import Options
from llmd.engine.protocol import Constraint, Grammar, JsonSchema
from llmd.errors import InvalidField

MAX_TOKENS = 1_000_000
"""The largest `max_tokens`. It also stands for "no limit but the context's"."""

_SEEDS = 2**32 - 1
"""The number of seeds that the engine accepts: 32 bits, of which one value means random."""

_CONVERSATION_HEADERS = ("X-OpenWebUI-Chat-Id", "X-Conversation-Id", "X-Session-ID")
MAX_AFFINITY_CHARS = 256
"""Longer names of conversations are cut: they are only a hint."""
CONVERSATION_ID = Parameter(
    "X-Conversation-Id",
    "The conversation that the request belongs to. Its state is reused if it is still in memory.",
    {"type": "string", "maxLength": MAX_AFFINITY_CHARS},
)

ModelName = Annotated[
    str, Meta(description="A profile's name, or a GGUF file's.", examples=["default"])
]
Stop = Annotated[str, Meta(min_length=1, max_length=128)]
Json = dict[str, Any]


class StreamOptions(Struct, frozen=True, kw_only=True):
    """How to stream. `include_usage` requests a last chunk with the numbers of tokens."""

    include_usage: bool | None = None


class SchemaFormat(Struct, frozen=True, kw_only=True, rename={"schema_": "schema"}):
    """A JSON schema with its name. Whatever `strict` says, it is enforced or refused."""

    schema_: Json
    name: str = ""
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Struct, frozen=True, kw_only=True, rename={"schema_": "schema"}):
    """The format of the answer: any text, a JSON object, or JSON that follows a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None
    schema_: Json | None = None


class GenerationFields(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of every body that requests generated text."""

    model: ModelName
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Meta(ge=-1, le=MAX_TOKENS)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=100_000)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    repeat_penalty: Annotated[float, Meta(ge=0.1, le=10)] | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.1, le=10)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: Stop | Annotated[list[Stop], Meta(max_length=8)] | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    n: int | None = None
    grammar: str | None = None
    json_schema: Json | None = None
    response_format: ResponseFormat | None = None
    user: str | None = None

    def changes(self) -> dict[str, Any]:
        """Return the profile's fields that this body sets."""
        values: dict[str, Any] = {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            # 0 would leave no token to sample. Clients mean the most likely one.
            "top_p": max(self.top_p, 1e-6) if self.top_p is not None else None,
            "top_k": max(self.top_k, 0) if self.top_k is not None else None,
            "min_p": self.min_p,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "repeat_penalty": (
                self.repetition_penalty if self.repeat_penalty is None else self.repeat_penalty
            ),
            # Some clients send a negative seed for a random one.
            "seed": self.seed % _SEEDS if self.seed is not None and self.seed >= 0 else None,
            "stop": [self.stop] if isinstance(self.stop, str) else self.stop,
        }
        if self.max_tokens is not None:
            values["max_tokens"] = max_tokens_of(self.max_tokens, "max_tokens")
        return {name: value for name, value in values.items() if value is not None}

    def options(self, affinity: str, *, num_logprobs: int | None = None) -> Options:
        """Return how to answer. Raise `InvalidField` for values that are not supported."""
        if self.n not in (None, 1):
            raise InvalidField("n must be 1: send the request again for another answer", param="n")
        return Options(
            model=self.model,
            changes=self.changes(),
            logit_bias=_logit_bias(self.logit_bias or {}),
            constraint=self._constraint(),
            num_logprobs=num_logprobs,
            affinity=affinity,
        )

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with a chunk that reports the usage."""
        options = self.stream_options
        return options is not None and bool(options.include_usage)

    def _constraint(self) -> Constraint | None:
        """Return the constraint of the answer, from OpenAI's field or one of llama.cpp's."""
        found = [self._format(), _schema(self.json_schema)]
        found += [Grammar(self.grammar)] if self.grammar else []
        given = [constraint for constraint in found if constraint is not None]
        if len(given) > 1:
            raise InvalidField(
                "response_format, json_schema and grammar cannot be combined: send only one",
                param="response_format",
            )
        return given[0] if given else None

    def _format(self) -> Constraint | None:
        wanted = self.response_format
        if wanted is None or wanted.type == "text":
            return None
        if wanted.type == "json_object":
            return _schema(wanted.schema_ or {"type": "object"})
        schema = wanted.json_schema.schema_ if wanted.json_schema else wanted.schema_
        if schema is None:
            raise InvalidField(
                "response_format.json_schema.schema is missing", param="response_format"
            )
        return _schema(schema)


def _schema(schema: Json | None) -> Constraint | None:
    return None if schema is None else JsonSchema(msgspec.json.encode(schema).decode())


def _logit_bias(given: dict[str, float]) -> dict[int, float]:
    biases: dict[int, float] = {}
    for name, bias in given.items():
        if not name.isascii() or not name.isdecimal() or len(name) > 9:
            raise InvalidField("the names in logit_bias must be token ids", param="logit_bias")
        biases[int(name)] = bias
    return biases


def affinity_of(req: falcon.Request, user: str | None) -> str:
    """Return the name of the request's conversation, from a header or `user`; "" without both.

    It begins with a tilde, so that it never equals the name of a stored session.
    """
    for header in _CONVERSATION_HEADERS:
        value = req.get_header(header)
        if value:
            return f"~{value[:MAX_AFFINITY_CHARS]}"
    return f"~{user[:MAX_AFFINITY_CHARS]}" if user else ""


def max_tokens_of(given: int, name: str) -> int:
    """Return the limit that a field sets; -1 stands for no limit but the context's."""
    if given == 0:
        raise InvalidField(f"{name} must be at least 1, or -1 for no limit", param=name)
    return MAX_TOKENS if given == -1 else given


CHAT_FIELDS = frozenset({"reasoning_effort"})
"""Fields that have an effect on the prompt of a chat, and on other routes none."""

IGNORED = frozenset(
    {
        # OpenAI's own, for features that this server does not have.
        "metadata",
        "modalities",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_retention",
        "reasoning_effort",
        "safety_identifier",
        "service_tier",
        "store",
        "verbosity",
        # llama.cpp's, sent by clients made for its server.
        "cache_prompt",
        "id_slot",
        "parse_tool_calls",
        "reasoning_format",
        "repeat_last_n",
        "return_progress",
        "samplers",
        "timings_per_token",
        "typical_p",
        # Ollama's and LiteLLM's.
        "keep_alive",
        "num_ctx",
        "think",
    }
)
"""Fields that known clients send, and that have no effect."""


def without_ignored(value: object, *, used: frozenset[str] = frozenset()) -> object:
    """Return a body without the fields that are null or have no effect, except those `used`."""
    if not isinstance(value, dict):
        return value
    return {
        name: item
        for name, item in value.items()
        if (name not in IGNORED or name in used)
        and (item is not None or name in {"content", "input", "prompt"})
    }
