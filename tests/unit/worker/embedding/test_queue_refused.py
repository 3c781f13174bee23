"""Inputs that the queue of embeddings refuses, and how it tokenises inputs."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from llmd.engine.protocol import Embedded, Event, Part, Refused
from llmd.errors import EngineFailed, InvalidField
from llmd.worker.embedding import queue
from llmd.worker.embedding.queue import MAX_CHARS_PER_STEP, EmbedQueue
from llmd.worker.llama.vocabulary import Vocabulary
from tests.support.fake_embedder import FakeBackend, QueueHarness


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "there is nothing to embed: give at least one text"),
        ([""], "the input is empty"),
        (["a", []], "input[1] is empty"),
        ([[3, 256]], "the input: the model has no token 256: its last is 255"),
        (["a", "b", [-1]], "input[2]: the model has no token -1: its last is 255"),
    ],
)
def test_an_invalid_input_is_refused(inputs: list[str | list[int]], message: str) -> None:
    """An invalid input is refused with its index, and the other jobs go on."""
    harness = QueueHarness()
    harness.queue.submit(1, ["before"])
    harness.queue.submit(2, inputs)
    harness.queue.submit(3, ["after"])
    harness.run()
    assert harness.refused(2).message == message
    harness.check(1, ["before"])
    harness.check(3, ["after"])


@pytest.mark.parametrize("raw", ["x" * 64, [4] * 65])
def test_too_long_an_input_is_refused_with_both_numbers(raw: str | list[int]) -> None:
    """The error contains the number of tokens and the limit, and one token fewer is accepted."""
    harness = QueueHarness()
    harness.queue.submit(1, ["a", raw])
    harness.queue.submit(2, [raw[1:]])
    harness.run()
    refused = harness.refused(1)
    assert refused.message == "input[1] has 65 tokens, but the model takes 64: shorten it"
    assert (refused.num_prompt_tokens, refused.num_context_tokens) == (65, 64)
    harness.check(2, [raw[1:]])


def test_a_far_too_long_text_is_refused_by_its_beginning() -> None:
    """A text that is far too long is not tokenised to its end."""
    harness = QueueHarness()
    harness.queue.submit(1, ["x" * 10_000_000])
    harness.run()
    assert harness.refused(1).message.startswith("the input has more than ")
    assert harness.backend.num_read < 10_000


def test_a_step_tokenises_only_some_inputs() -> None:
    """A large job is tokenised over many steps, and a small one ends before it."""
    harness = QueueHarness(FakeBackend(max_input_tokens=MAX_CHARS_PER_STEP))
    harness.queue.submit(1, ["x" * (MAX_CHARS_PER_STEP // 4)] * 40)
    harness.queue.step()
    harness.queue.submit(2, ["small"])
    harness.steps_until(lambda: harness.end(2))
    assert harness.backend.num_read < 4 * MAX_CHARS_PER_STEP
    assert harness.queue.num_jobs == 1


def test_the_backend_is_made_for_the_first_job_and_once() -> None:
    """The backend is made for the first job, and only once."""
    harness = QueueHarness()
    assert harness.num_made == 0
    harness.queue.submit(1, ["a"])
    harness.queue.submit(2, ["b"])
    harness.run()
    assert harness.num_made == 1


def test_a_model_that_cannot_embed_refuses() -> None:
    """Each job is refused with the reason until the backend can be made."""
    errors: Iterator[Exception] = iter(
        [InvalidField("the model is a reranker"), EngineFailed("no memory")]
    )
    events: list[Event] = []
    backend = FakeBackend()

    def make() -> FakeBackend:
        if (error := next(errors, None)) is not None:
            raise error
        return backend

    queue = EmbedQueue(make, events.append)
    for job_id in (1, 2, 3):
        queue.submit(job_id, ["a"])
    queue.step()
    messages = [event.message for event in events if isinstance(event, Refused)]
    assert messages == ["the model is a reranker", "no memory"]
    assert [event.id for event in events if isinstance(event, Embedded)] == [3]


def test_no_vector_of_infinities_is_sent() -> None:
    """A job is refused once if the vectors of its inputs are infinite."""
    harness = QueueHarness()
    harness.backend.makes_infinite = True
    harness.queue.submit(1, ["a", "b", "c"])
    harness.run()
    assert "no usable vector" in harness.refused(1).message
    harness.backend.makes_infinite = False
    harness.queue.submit(2, ["a"])
    harness.run()
    harness.check(2, ["a"])


def test_vectors_fit_into_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job with too many inputs is refused, and a step sends only as many jobs as fit."""
    monkeypatch.setattr(queue, "MAX_VECTORS_BYTES", 3 * 16)
    harness = QueueHarness()
    harness.queue.submit(1, ["a"] * 4)
    assert harness.refused(1).message == "there are 4 inputs, but one request may have at most 3"
    for job_id, num_inputs in ((2, 1), (3, 1), (4, 1), (5, 3)):
        harness.queue.submit(job_id, [[7]] * num_inputs)
    ended: list[list[int]] = []
    while harness.queue.has_work:
        num_before = len(harness.events)
        harness.queue.step()
        ended.append(
            [event.id for event in harness.events[num_before:] if isinstance(event, Embedded)]
        )
    assert ended == [[2, 3, 4], [5]]


class FakeLib(SimpleNamespace):
    """A fake llama.cpp with a token for each byte, and configurable special tokens."""

    LLAMA_TOKEN_ATTR_UNKNOWN = 1
    LLAMA_TOKEN_ATTR_CONTROL = 8
    LLAMA_TOKEN_ATTR_USER_DEFINED = 16
    LLAMA_TOKEN_ATTR_LSTRIP = 128
    LLAMA_TOKEN_ATTR_RSTRIP = 256
    LLAMA_VOCAB_TYPE_WPM = 3

    def __getattr__(self, name: str) -> Any:
        answers = {"llama_model_get_vocab": None, "llama_vocab_n_tokens": 0} | self.answers
        return lambda *_args: answers[name]

    def llama_token_to_piece(self, *_args: object) -> int:
        return 0

    def llama_tokenize(self, _vocab: object, raw: bytes, _n: int, tokens: Any, *_rest: Any) -> int:
        for index, byte in enumerate(raw):
            tokens[index] = byte
        return len(raw)


@pytest.mark.parametrize(
    ("kind", "bos", "adds_bos", "eos", "adds_eos", "expected"),
    [
        (2, 1, True, 2, False, [1, 97]),
        (2, 1, True, 2, True, [1, 97, 2]),
        (2, -1, True, 2, False, [97]),
        (2, 1, False, -1, True, [97]),
        (3, 1, False, -1, False, [1, 97, 3]),
    ],
)
def test_a_text_to_embed_has_the_special_tokens_that_the_model_expects(
    kind: int, bos: int, adds_bos: bool, eos: int, adds_eos: bool, expected: list[int]
) -> None:
    """A text to embed has the special tokens around it that the model has and expects."""
    lib = FakeLib(
        answers={
            "llama_vocab_type": kind,
            "llama_vocab_bos": bos,
            "llama_vocab_eos": eos,
            "llama_vocab_sep": 3,
            "llama_vocab_get_add_bos": adds_bos,
            "llama_vocab_get_add_eos": adds_eos,
        }
    )
    vocabulary = Vocabulary(lib, SimpleNamespace(), None)  # type: ignore[arg-type]
    assert vocabulary.tokenize_whole("a") == expected
    assert vocabulary.tokenize([Part(text="a")], begin=False) == [97]
