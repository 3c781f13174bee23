"""``/v1/embeddings``: compute the vectors of texts."""

from __future__ import annotations

import base64
import math
import sys
from array import array
from typing import Annotated, Literal

import falcon
from msgspec import Meta, Struct

from llmd.api import body
from llmd.api.access import Access, caller_of, is_gone
from llmd.api.openai.reply_parts import PROMPT_ERRORS
from llmd.api.openai.request_fields import ModelName, without_ignored
from llmd.api.openai.text_inputs import Inputs, inputs_of
from llmd.api.reply import send
from llmd.api.route import Operation
from llmd.chat.embeddings import Embeddings
from llmd.chat.model_names import ModelNames
from llmd.errors import Conflict, InvalidField

MAX_INPUTS = 2048
"""The most inputs that one request may have, as in OpenAI's API."""


class EmbeddingBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Texts, or their tokens. Vectors are cut to their first `dimensions` numbers."""

    input: Annotated[Inputs, Meta(examples=["a text", ["one", "two"]])]
    model: ModelName | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Meta(ge=1, le=65_536)] | None = None
    user: str | None = None


class EmbeddingObject(Struct, frozen=True, kw_only=True):
    """The vector of an input, of length 1: as numbers, or as float32 in base64."""

    embedding: list[float] | str
    index: int
    object: Literal["embedding"] = "embedding"


class EmbeddingUsage(Struct, frozen=True, kw_only=True):
    """The number of tokens that were read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingReply(Struct, frozen=True, kw_only=True):
    """The vectors of all inputs, in the order of the inputs."""

    data: list[EmbeddingObject]
    model: str
    usage: EmbeddingUsage
    object: Literal["list"] = "list"


EMBEDDING = {
    "POST": Operation(
        summary="Compute the vectors of texts",
        access=Access.USER,
        body=EmbeddingBody,
        reply=EmbeddingReply,
        errors=PROMPT_ERRORS,
    )
}


class EmbeddingResource:
    """The resource that computes the vectors of texts."""

    is_openai = True

    def __init__(self, embeddings: Embeddings, models: ModelNames) -> None:
        self._embeddings = embeddings
        self._models = models

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Send the vectors of all inputs."""
        given = without_ignored(body.parse(body.read_raw(req)))
        wanted = body.convert(given, EmbeddingBody)
        inputs = inputs_of(wanted.input, "input", MAX_INPUTS)
        self._check_model(wanted.model)
        result = self._embeddings.embed(caller_of(req).id, inputs, lambda: is_gone(req))
        data = [
            EmbeddingObject(index=index, embedding=_encoded(vector, wanted))
            for index, vector in enumerate(result.vectors)
        ]
        usage = EmbeddingUsage(prompt_tokens=result.num_tokens, total_tokens=result.num_tokens)
        send(resp, EmbeddingReply(data=data, model=wanted.model or result.model, usage=usage))

    def _check_model(self, name: str | None) -> None:
        """Raise `UnknownModel` or `Conflict` if the named model does not compute vectors now."""
        serving = self._embeddings.model
        if name is None or name == serving:
            return
        self._models.get(name)
        if name.endswith(".gguf"):
            raise Conflict(f"{name} does not compute vectors now, {serving} does", param="model")


def _encoded(raw: bytes, wanted: EmbeddingBody) -> list[float] | str:
    """Return a vector in the requested encoding, cut and scaled to length 1 again."""
    vector = array("f", raw)
    if wanted.dimensions is not None:
        if wanted.dimensions > len(vector):
            raise InvalidField(
                f"dimensions must be 1 to {len(vector)} for this model", param="dimensions"
            )
        vector = vector[: wanted.dimensions]
        length = math.hypot(*vector) or 1.0
        vector = array("f", (number / length for number in vector))
    if wanted.encoding_format == "base64":
        if sys.byteorder == "big":
            vector.byteswap()
        return base64.b64encode(vector).decode()
    return vector.tolist()
