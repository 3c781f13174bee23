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
    """Of many numbers, with the tokens that were read."""
    answer = checked(_embed(client, SEA))
    assert answer.object == "list"
    (entry,) = answer.data
    assert (entry.index, entry.object) == (0, "embedding")
    assert len(entry.embedding) > 100
    assert math.isclose(_dot(entry.embedding, entry.embedding), 1, rel_tol=1e-3)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0


def test_numbers_are_the_same_as_text_or_as_bytes(client: OpenAI) -> None:
    """The client asks for base64 unless told otherwise, and reads either."""
    (as_bytes,) = _vectors(_embed(client, SEA))
    (as_text,) = _vectors(_embed(client, SEA, encoding_format="float"))
    assert as_bytes == pytest.approx(as_text, abs=1e-6)
    raw: Any = _embed(client, SEA, encoding_format="base64").data[0].embedding
    assert np.frombuffer(base64.b64decode(raw), dtype="<f4") == pytest.approx(as_text, abs=1e-6)


def test_many_texts_keep_their_order(client: OpenAI) -> None:
    """Each vector is its own text's: the one that this text has alone."""
    texts = [SEA, TAX, SHIP]
    answer = _embed(client, texts)
    assert [entry.index for entry in answer.data] == [0, 1, 2]
    batch = _vectors(answer)
    for text, vector in zip(texts, batch, strict=True):
        (alone,) = _vectors(_embed(client, text))
        nearest = max(batch, key=lambda other: _dot(other, alone))
        assert nearest is vector
        assert _dot(vector, alone) == pytest.approx(1, abs=1e-2)


def test_fewer_numbers_can_be_asked_for(client: OpenAI) -> None:
    """They are the first of all, at length one again."""
    (whole,) = _vectors(_embed(client, SEA))
    (short,) = _vectors(_embed(client, SEA, dimensions=64))
    first = whole[:64]
    length = math.sqrt(_dot(first, first))
    assert short == pytest.approx([number / length for number in first], abs=1e-4)
    with pytest.raises(openai.BadRequestError) as refused:
        _embed(client, SEA, dimensions=60_000)
    assert refused.value.param == "dimensions"


def test_tokens_are_as_good_as_text(client: OpenAI, daemon: Daemon) -> None:
    """One list of ids is one input, several are several."""
    tokens = daemon.client.call("POST", "/tokenize", {"content": SEA}).body["tokens"]
    (of_text,) = _vectors(_embed(client, SEA))
    (of_tokens,) = _vectors(_embed(client, tokens))
    assert len(of_tokens) == len(of_text)
    many = _embed(client, [tokens, tokens[:3]])
    assert [entry.index for entry in many.data] == [0, 1]
    assert _dot(many.data[0].embedding, of_tokens) == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize("given", ["", [], ["", SEA], [[]]], ids=["text", "list", "one", "tokens"])
def test_nothing_has_no_vector(client: OpenAI, given: Any) -> None:
    """An empty input is refused by its field."""
    with pytest.raises(openai.BadRequestError) as refused:
        _embed(client, given)
    assert refused.value.param == "input"


def test_too_long_a_text_has_no_vector(client: OpenAI) -> None:
    """It is refused, not silently cut."""
    with pytest.raises(openai.BadRequestError) as refused:
        _embed(client, "one two three four " * 4000)
    assert refused.value.code == "context_length_exceeded"


def test_an_unknown_model_has_no_vectors(client: OpenAI) -> None:
    """Not even another's."""
    with pytest.raises(openai.NotFoundError) as refused:
        client.embeddings.create(model="text-embedding-3-small", input=SEA)
    assert refused.value.code == "model_not_found"
