"""OpenAI's client gets the vectors of texts."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
import openai
import pytest
from openai import OpenAI
from openai.types import CreateEmbeddingResponse

from tests.clients.sdk import MODEL, checked
from tests.e2e.daemon import Daemon

pytestmark = pytest.mark.e2e

SEA = "The sea is wide and blue."
SHIP = "A ship sails on the ocean."
TAX = "Taxes must be paid by the end of May."


def _embed(client: OpenAI, texts: Any, **options: Any) -> CreateEmbeddingResponse:
    return client.embeddings.create(model=MODEL, input=texts, **options)


def _vectors(answer: CreateEmbeddingResponse) -> list[list[float]]:
    return [entry.embedding for entry in answer.data]


def _dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_a_text_has_a_vector_of_length_one(client: OpenAI) -> None:
    """A text has a vector of length 1, and the usage counts its tokens."""
    answer = checked(_embed(client, SEA))
    assert answer.object == "list"
    (entry,) = answer.data
    assert (entry.index, entry.object) == (0, "embedding")
    assert len(entry.embedding) > 100
    assert math.isclose(_dot(entry.embedding, entry.embedding), 1, rel_tol=1e-3)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0


def test_a_vector_is_the_same_in_base64_and_as_numbers(client: OpenAI) -> None:
    """A vector is the same in base64, which the client requests by default, and as numbers."""
    (as_bytes,) = _vectors(_embed(client, SEA))
    (as_text,) = _vectors(_embed(client, SEA, encoding_format="float"))
    assert as_bytes == pytest.approx(as_text, abs=1e-6)
    raw: Any = _embed(client, SEA, encoding_format="base64").data[0].embedding
    assert np.frombuffer(base64.b64decode(raw), dtype="<f4") == pytest.approx(as_text, abs=1e-6)


def test_many_texts_keep_their_order(client: OpenAI) -> None:
    """Each vector of a batch equals the vector that its text has alone."""
    texts = [SEA, TAX, SHIP]
    answer = _embed(client, texts)
    assert [entry.index for entry in answer.data] == [0, 1, 2]
    batch = _vectors(answer)
    for text, vector in zip(texts, batch, strict=True):
        (alone,) = _vectors(_embed(client, text))
        nearest = max(batch, key=lambda other: _dot(other, alone))
        assert nearest is vector
        assert _dot(vector, alone) == pytest.approx(1, abs=1e-2)


def test_fewer_dimensions_can_be_requested(client: OpenAI) -> None:
    """With `dimensions` a vector is its first numbers, scaled to length 1."""
    (whole,) = _vectors(_embed(client, SEA))
    (short,) = _vectors(_embed(client, SEA, dimensions=64))
    first = whole[:64]
    length = math.sqrt(_dot(first, first))
    assert short == pytest.approx([number / length for number in first], abs=1e-4)
    with pytest.raises(openai.BadRequestError) as refused:
        _embed(client, SEA, dimensions=60_000)
    assert refused.value.param == "dimensions"


def test_inputs_may_be_token_ids(client: OpenAI, daemon: Daemon) -> None:
    """A list of token ids is one input; a list of such lists is several."""
    tokens = daemon.client.call("POST", "/tokenize", {"content": SEA}).body["tokens"]
    (of_text,) = _vectors(_embed(client, SEA))
    (of_tokens,) = _vectors(_embed(client, tokens))
    assert len(of_tokens) == len(of_text)
    many = _embed(client, [tokens, tokens[:3]])
    assert [entry.index for entry in many.data] == [0, 1]
    assert _dot(many.data[0].embedding, of_tokens) == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize("given", ["", [], ["", SEA], [[]]], ids=["text", "list", "one", "tokens"])
def test_an_empty_input_is_refused(client: OpenAI, given: Any) -> None:
    """An empty input is refused by its field."""
    with pytest.raises(openai.BadRequestError) as refused:
        _embed(client, given)
    assert refused.value.param == "input"


def test_a_text_that_is_too_long_is_refused(client: OpenAI) -> None:
    """A text that is too long is refused instead of cut."""
    with pytest.raises(openai.BadRequestError) as refused:
        _embed(client, "one two three four " * 4000)
    assert refused.value.code == "context_length_exceeded"


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    """An unknown model is a 404; no other model computes the vectors instead."""
    with pytest.raises(openai.NotFoundError) as refused:
        client.embeddings.create(model="text-embedding-3-small", input=SEA)
    assert refused.value.code == "model_not_found"
