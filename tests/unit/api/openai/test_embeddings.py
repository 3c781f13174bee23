"""`/v1/embeddings`: the vectors of texts, and requests that are refused."""

from __future__ import annotations

import base64
import struct
from array import array
from typing import Any

import pytest

from llmd.engine.protocol import Embed, Embedded, Query, Refused
from llmd.errors import EngineDied, EngineLoading
from tests.support.answers import is_free
from tests.support.fake_engine import Event
from tests.support.service import Service

PATH = "/v1/embeddings"
ASK: dict[str, Any] = {"model": "tiny.gguf", "input": "hi"}
VECTOR = [0.5, -0.5, 0.5, 0.5]


class Model:
    """A fake model that returns the same vector for each input, unless others are given."""

    def __init__(self, service: Service, *vectors: list[float]) -> None:
        self._vectors = vectors
        self.inputs: list[list[str | list[int]]] = []
        service.engine.reply = self._reply

    def _reply(self, query: Query) -> list[Event]:
        assert isinstance(query, Embed)
        self.inputs.append(query.inputs)
        vectors = self._vectors or [VECTOR] * len(query.inputs)
        raw = [array("f", vector).tobytes() for vector in vectors]
        return [Embedded(id=0, vectors=raw, num_tokens=9)]


def _embed(service: Service, **fields: Any) -> Any:
    result = service.ask("POST", PATH, ASK | fields)
    assert result.status_code == 200, result.text
    return result.json


def _vectors(service: Service, **fields: Any) -> list[Any]:
    return [item["embedding"] for item in _embed(service, **fields)["data"]]


def test_a_reply_has_every_field_of_the_contract(service: Service) -> None:
    """The reply has all fields that OpenAI's clients read, and no others."""
    model = Model(service)
    assert _embed(service) == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": VECTOR}],
        "model": "tiny.gguf",
        "usage": {"prompt_tokens": 9, "total_tokens": 9},
    }
    assert model.inputs == [["hi"]]
    assert is_free(service)


def test_the_route_without_v1_is_the_same(service: Service) -> None:
    """The route also answers without `/v1`, for clients that are given the bare address."""
    Model(service)
    assert service.ask("POST", "/embeddings", ASK).json["object"] == "list"


def test_vectors_come_in_the_order_of_their_inputs(service: Service) -> None:
    """Vectors come in the order of their inputs, each with its index."""
    Model(service, [1.0], [2.0], [3.0])
    data = _embed(service, input=["a", "b", "c"])["data"]
    assert [(item["index"], item["embedding"]) for item in data] == [(0, [1]), (1, [2]), (2, [3])]


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ("hi", ["hi"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2, 3], [[1, 2, 3]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
        (["a", [1]], ["a", [1]]),
    ],
)
def test_inputs_are_texts_or_their_tokens(
    service: Service, given: object, inputs: list[str | list[int]]
) -> None:
    """Texts and token lists reach the model unchanged."""
    model = Model(service)
    _embed(service, input=given)
    assert model.inputs == [inputs]


def test_a_vector_in_base64_is_little_endian_float32(service: Service) -> None:
    """A vector in base64 is little-endian float32, as clients unpack it."""
    Model(service, [0.5, -2.0, 1e-3])
    [text] = _vectors(service, encoding_format="base64")
    assert struct.unpack("<3f", base64.b64decode(text, validate=True)) == pytest.approx(
        (0.5, -2.0, 1e-3)
    )


@pytest.mark.parametrize("encoding", [None, "float"])
def test_a_vector_is_numbers_by_default(service: Service, encoding: str | None) -> None:
    """Without an encoding, or with null, a vector is a list of numbers."""
    Model(service)
    assert _vectors(service, encoding_format=encoding) == [VECTOR]


@pytest.mark.parametrize(
    ("dimensions", "expected"),
    [
        (None, [0.5, -0.5, 0.5, 0.5]),
        (4, [0.5, -0.5, 0.5, 0.5]),
        (2, [0.5**0.5, -(0.5**0.5)]),
        (1, [1.0]),
    ],
)
def test_a_vector_that_is_cut_has_length_one_again(
    service: Service, dimensions: int | None, expected: list[float]
) -> None:
    """A vector that is cut to `dimensions` is scaled to length 1, in either encoding."""
    Model(service)
    assert _vectors(service, dimensions=dimensions) == [pytest.approx(expected)]
    [text] = _vectors(service, dimensions=dimensions, encoding_format="base64")
    raw = base64.b64decode(text)
    assert struct.unpack(f"<{len(expected)}f", raw) == pytest.approx(expected)


def test_a_cut_vector_of_zeros_stays_zero(service: Service) -> None:
    """A vector whose first numbers are all 0 stays 0: it has no direction."""
    Model(service, [0.0, 0.0, 1.0])
    assert _vectors(service, dimensions=2) == [[0.0, 0.0]]


def test_the_reply_names_the_model_as_the_request_did(service: Service) -> None:
    """The reply names the model as the request did, or by its file if the request names none."""
    Model(service)
    service.add_model("other.gguf")
    service.put_profile("of-other", model="other.gguf")
    for name in ("default", "of-other", "tiny.gguf"):
        assert _embed(service, model=name)["model"] == name
    assert _embed(service, model=None)["model"] == "tiny.gguf"
    assert service.ask("POST", PATH, {"input": "hi"}).json["model"] == "tiny.gguf"


def test_an_unknown_model_is_not_found(service: Service) -> None:
    """An unknown model is a 404; no other model computes the vectors instead."""
    model = Model(service)
    result = service.ask("POST", PATH, ASK | {"model": "text-embedding-3-small"})
    assert service.code(result) == (404, "model_not_found")
    assert result.json["error"]["param"] == "model"
    assert model.inputs == []


def test_a_model_that_is_not_loaded_is_a_conflict(service: Service) -> None:
    """A model that is not loaded is a 409, so that vectors of two models are never mixed."""
    model = Model(service)
    service.add_model("other.gguf")
    result = service.ask("POST", PATH, ASK | {"model": "other.gguf"})
    assert service.code(result) == (409, "conflict")
    assert result.json["error"]["param"] == "model"
    assert result.headers["x-should-retry"] == "false"
    assert model.inputs == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": [[]]}, "input"),
        ({"input": [1, "a"]}, "input"),
        ({"input": [1, [2]]}, "input"),
        ({"input": 5}, "input"),
        ({"input": [-1]}, "input[0]"),
        ({"input": ["a"] * 2049}, "input"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": 65_537}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"prompt": "hi"}, "prompt"),
    ],
)
def test_an_invalid_field_is_named(service: Service, fields: dict[str, Any], param: str) -> None:
    """An invalid field is a 400 that names the field, before the engine is asked."""
    model = Model(service)
    result = service.ask("POST", PATH, ASK | fields)
    assert service.code(result) == (400, "invalid_field")
    assert result.json["error"]["param"] == param
    assert model.inputs == []


def test_more_dimensions_than_the_model_has_are_refused(service: Service) -> None:
    """More dimensions than the model has are refused; the error says how many it has."""
    Model(service)
    result = service.ask("POST", PATH, ASK | {"dimensions": 5})
    assert service.code(result) == (400, "invalid_field")
    error = result.json["error"]
    assert error["param"] == "dimensions"
    assert "4" in error["message"]
    assert is_free(service)


def test_the_largest_number_of_inputs_is_accepted(service: Service) -> None:
    """A request may have the largest number of inputs."""
    Model(service)
    assert len(_embed(service, input=["a"] * 2048)["data"]) == 2048


def test_fields_without_effect_are_ignored(service: Service) -> None:
    """Fields that clients send and that have no effect are ignored."""
    Model(service)
    _embed(service, user="ann", metadata={"a": "b"}, keep_alive="5m")


@pytest.mark.parametrize(
    ("event", "status", "code"),
    [
        (Refused(id=0, message="the input is empty", param="input"), 400, "invalid_field"),
        (
            Refused(
                id=0, message="too long", param="input", num_prompt_tokens=9, num_context_tokens=8
            ),
            400,
            "context_length_exceeded",
        ),
        (EngineDied("the worker ended"), 503, "engine_died"),
    ],
)
def test_an_input_that_cannot_be_embedded_is_an_error(
    service: Service, event: Event, status: int, code: str
) -> None:
    """If the engine refuses an input or dies, the error is reported and the queue is free again."""
    service.engine.reply = lambda _query: [event]
    result = service.ask("POST", PATH, ASK)
    assert service.code(result) == (status, code)
    assert result.json["error"]["param"] == ("input" if status == 400 else None)
    assert is_free(service)


def test_an_engine_that_is_not_ready_may_be_tried_again(service: Service) -> None:
    """While the model is being loaded, a 503 says in Retry-After when to try again."""
    service.engine.not_ready = EngineLoading("the model is being loaded", retry_after_s=7)
    result = service.ask("POST", PATH, ASK)
    assert service.code(result) == (503, "model_loading")
    assert result.headers["retry-after"] == "7"
