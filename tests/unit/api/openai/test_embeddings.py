"""`/v1/embeddings`."""

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
    """What makes a vector for each input: the same one, unless others are given."""

    def __init__(self, service: Service, *vectors: list[float]) -> None:
        self._vectors = vectors
        self.inputs: list[list[str | list[int]]] = []
        service.engine.reply = self._embed

    def _embed(self, query: Query) -> list[Event]:
        assert isinstance(query, Embed)
        self.inputs.append(query.inputs)
        vectors = self._vectors or [VECTOR] * len(query.inputs)
        raw = [array("f", vector).tobytes() for vector in vectors]
        return [Embedded(id=0, vectors=raw, num_tokens=9)]


def _make(service: Service, **fields: Any) -> Any:
    result = service.ask("POST", PATH, ASK | fields)
    assert result.status_code == 200, result.text
    return result.json


def _vectors(service: Service, **fields: Any) -> list[Any]:
    return [item["embedding"] for item in _make(service, **fields)["data"]]


def test_an_answer_has_every_field_of_the_contract(service: Service) -> None:
    """In the shape that OpenAI's clients read, with nothing else."""
    model = Model(service)
    assert _make(service) == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": VECTOR}],
        "model": "tiny.gguf",
        "usage": {"prompt_tokens": 9, "total_tokens": 9},
    }
    assert model.inputs == [["hi"]]
    assert is_free(service)


def test_the_route_without_v1_is_the_same(service: Service) -> None:
    """Some clients are given the bare address."""
    Model(service)
    assert service.ask("POST", "/embeddings", ASK).json["object"] == "list"


def test_vectors_come_in_the_order_of_their_inputs(service: Service) -> None:
    """Each with its number."""
    Model(service, [1.0], [2.0], [3.0])
    data = _make(service, input=["a", "b", "c"])["data"]
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
    """They reach the model as they are."""
    model = Model(service)
    _make(service, input=given)
    assert model.inputs == [inputs]


def test_a_vector_in_base64_is_float32_from_the_lowest_byte(service: Service) -> None:
    """Clients ask for it by themselves, and unpack it so."""
    Model(service, [0.5, -2.0, 1e-3])
    [text] = _vectors(service, encoding_format="base64")
    assert struct.unpack("<3f", base64.b64decode(text, validate=True)) == pytest.approx(
        (0.5, -2.0, 1e-3)
    )


@pytest.mark.parametrize("form", [None, "float"])
def test_a_vector_is_numbers_unless_told_otherwise(service: Service, form: str | None) -> None:
    """Null is the default."""
    Model(service)
    assert _vectors(service, encoding_format=form) == [VECTOR]


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
    """In either form."""
    Model(service)
    assert _vectors(service, dimensions=dimensions) == [pytest.approx(expected)]
    [text] = _vectors(service, dimensions=dimensions, encoding_format="base64")
    raw = base64.b64decode(text)
    assert struct.unpack(f"<{len(expected)}f", raw) == pytest.approx(expected)


def test_a_vector_of_which_nothing_is_left_is_zeros(service: Service) -> None:
    """It has no direction."""
    Model(service, [0.0, 0.0, 1.0])
    assert _vectors(service, dimensions=2) == [[0.0, 0.0]]


def test_the_model_is_called_as_the_client_called_it(service: Service) -> None:
    """A profile has vectors too, and who names none hears which model made them."""
    Model(service)
    service.add_model("other.gguf")
    service.put_profile("of-other", model="other.gguf")
    for name in ("default", "of-other", "tiny.gguf"):
        assert _make(service, model=name)["model"] == name
    assert _make(service, model=None)["model"] == "tiny.gguf"
    assert service.ask("POST", PATH, {"input": "hi"}).json["model"] == "tiny.gguf"


def test_an_unknown_model_is_not_found(service: Service) -> None:
    """No other makes vectors in its place."""
    model = Model(service)
    result = service.ask("POST", PATH, ASK | {"model": "text-embedding-3-small"})
    assert service.code(result) == (404, "model_not_found")
    assert result.json["error"]["param"] == "model"
    assert model.inputs == []


def test_a_model_that_is_not_loaded_is_a_conflict(service: Service) -> None:
    """Vectors of two models must not get mixed in silence."""
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
def test_a_field_that_is_wrong_is_named(
    service: Service, fields: dict[str, Any], param: str
) -> None:
    """As a mistake of the client's, before the engine is asked."""
    model = Model(service)
    result = service.ask("POST", PATH, ASK | fields)
    assert service.code(result) == (400, "invalid_field")
    assert result.json["error"]["param"] == param
    assert model.inputs == []


def test_a_model_cannot_have_more_dimensions_than_it_has(service: Service) -> None:
    """The error tells how many there are."""
    Model(service)
    result = service.ask("POST", PATH, ASK | {"dimensions": 5})
    assert service.code(result) == (400, "invalid_field")
    error = result.json["error"]
    assert error["param"] == "dimensions"
    assert "4" in error["message"]
    assert is_free(service)


def test_as_many_inputs_as_may_be_are_taken(service: Service) -> None:
    """At once."""
    Model(service)
    assert len(_make(service, input=["a"] * 2048)["data"]) == 2048


def test_fields_that_change_nothing_are_passed_over(service: Service) -> None:
    """Clients send them."""
    Model(service)
    _make(service, user="ann", metadata={"a": "b"}, keep_alive="5m")


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
    """With its place given back."""
    service.engine.reply = lambda _query: [event]
    result = service.ask("POST", PATH, ASK)
    assert service.code(result) == (status, code)
    assert result.json["error"]["param"] == ("input" if status == 400 else None)
    assert is_free(service)


def test_an_engine_that_is_not_ready_may_be_tried_again(service: Service) -> None:
    """The header tells when."""
    service.engine.not_ready = EngineLoading("the model is being loaded", retry_after_s=7)
    result = service.ask("POST", PATH, ASK)
    assert service.code(result) == (503, "model_loading")
    assert result.headers["retry-after"] == "7"
