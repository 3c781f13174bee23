"""Turns, chunks and vectors of the queue of embeddings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.engine.protocol import Done, Embedded
from llmd.errors import LlmdError
from llmd.worker.embedding.queue import (
    CHARS_AN_INPUT,
    MAX_CHARS_PER_STEP,
    MAX_SHARED_TOKENS,
    EmbedQueue,
)
from llmd.worker.text_thread import LONG_CHARS, TextThread, Tokens
from tests.support.fake_embedder import NOTHING, FakeBackend, QueueHarness


def test_a_job_returns_a_vector_for_each_input_in_order() -> None:
    """A job returns vectors of length 1 in the order of its inputs, and counts their tokens."""
    harness = QueueHarness()
    inputs: list[str | list[int]] = ["cat", "a dog", [9, 8, 7], "x" * 30, "cat"]
    harness.queue.submit(5, inputs)
    harness.run()
    harness.check(5, inputs)
    assert all(np.linalg.norm(vector) == pytest.approx(1.0) for vector in harness.vectors(5))
    event = harness.end(5)
    assert isinstance(event, Embedded)
    assert event.num_tokens == 4 + 6 + 3 + 31 + 4
    assert harness.queue.num_tokens == event.num_tokens
    assert (harness.queue.has_work, harness.queue.num_jobs) == (False, 0)


def test_a_vector_of_zeros_stays_as_it_is() -> None:
    """A vector of zeros is not normalised."""
    harness = QueueHarness()
    harness.queue.submit(1, [[NOTHING]])
    harness.run()
    assert harness.vectors(1)[0].tolist() == [0, 0, 0, 0]


def test_short_inputs_share_a_run() -> None:
    """A run takes as many inputs as there are tokens and slots for, of one or several jobs."""
    harness = QueueHarness(FakeBackend(max_batch_tokens=8, max_sequences=4))
    harness.queue.submit(1, [[2], [3], [4], [5]])
    harness.queue.submit(2, [[6, 6, 6], [7]])
    harness.queue.step()
    assert [chunk.tokens for chunk in harness.backend.runs[0]] == [[2], [3], [4]]
    harness.queue.step()
    assert [chunk.tokens for chunk in harness.backend.runs[1]] == [[6, 6, 6], [7], [5]]
    assert not harness.queue.has_work


@pytest.mark.parametrize("sums_tokens", [True, False])
@pytest.mark.parametrize("max_batch_tokens", [2, 3, 8, 32, 64])
def test_the_vector_does_not_depend_on_the_chunks(sums_tokens: bool, max_batch_tokens: int) -> None:
    """The vector of an input does not depend on how it is split into chunks."""
    harness = QueueHarness(FakeBackend(sums_tokens=sums_tokens, max_batch_tokens=max_batch_tokens))
    text = "the quick brown fox jumps over the lazy dog"
    harness.queue.submit(1, [text])
    harness.run()
    harness.check(1, [text])
    assert len(harness.backend.runs) == -(-(1 + len(text)) // max_batch_tokens)


def test_a_model_that_reads_inputs_whole_takes_a_long_one_alone() -> None:
    """A long input that cannot be split is computed alone in one run."""
    harness = QueueHarness(FakeBackend(can_split=False, sums_tokens=False))
    inputs: list[str | list[int]] = [[2], [3], [4] * 20, [5], [6] * 8, [7]]
    harness.queue.submit(1, inputs)
    harness.run()
    harness.check(1, inputs)
    lengths = [[len(chunk.tokens) for chunk in run] for run in harness.backend.runs]
    assert lengths == [[1, 1], [20], [1], [8], [1]]


def test_a_single_text_does_not_wait_for_a_large_batch() -> None:
    """A single text is computed within two steps, although a large job is queued before it."""
    harness = QueueHarness()
    harness.queue.submit(1, ["seven.."] * 500)
    harness.queue.step()
    harness.queue.submit(2, ["one"])
    assert harness.steps_until(lambda: harness.end(2)) <= 2
    harness.run()
    harness.check(1, ["seven.."] * 500)


def test_a_short_text_goes_on_beside_a_long_one() -> None:
    """Short texts are computed between the chunks of a long one."""
    harness = QueueHarness()
    harness.queue.submit(1, ["x" * 60])
    harness.queue.step()
    harness.queue.submit(2, ["one", "two", "three"])
    assert harness.steps_until(lambda: harness.end(2)) <= 5
    assert harness.end(1) is None
    harness.run()
    harness.check(1, ["x" * 60])
    harness.check(2, ["one", "two", "three"])


def test_one_input_at_a_time_is_in_chunks() -> None:
    """A second long input waits for the first one, but short inputs do not."""
    harness = QueueHarness()
    harness.queue.submit(1, ["x" * 60])
    harness.queue.submit(2, ["y" * 60])
    harness.queue.submit(3, ["z"])
    harness.steps_until(lambda: harness.end(3))
    assert harness.end(1) is None
    harness.run()
    assert [event.id for event in harness.events if isinstance(event, Embedded)] == [3, 1, 2]
    for job_id, text in ((1, "x" * 60), (2, "y" * 60)):
        harness.check(job_id, [text])


def test_a_cancelled_job_ends_at_once() -> None:
    """A cancelled job ends at once, whether it is unread, waiting or partly computed."""
    harness = QueueHarness()
    harness.queue.submit(1, ["x" * 60])
    harness.queue.step()
    harness.queue.submit(2, ["y" * 60, "y"])
    harness.queue.submit(3, ["z" * 60])
    harness.queue.cancel(2)
    harness.queue.step()
    harness.queue.cancel(1)
    harness.queue.cancel(99)
    for job_id in (1, 2):
        event = harness.end(job_id)
        assert isinstance(event, Done)
        assert event.finish_reason == "cancelled"
    assert harness.queue.num_jobs == 1
    harness.run()
    harness.check(3, ["z" * 60])
    harness.queue.cancel(3)
    assert isinstance(harness.end(3), Embedded)


_inputs = st.lists(
    st.one_of(
        st.integers(1, 63).map(lambda number: "x" * number),
        st.lists(st.integers(2, 255), min_size=1, max_size=64),
    ),
    min_size=1,
    max_size=6,
)


@given(
    jobs=st.lists(st.tuples(_inputs, st.integers(0, 3), st.booleans()), max_size=6),
    can_split=st.booleans(),
    sums_tokens=st.booleans(),
    max_sequences=st.integers(2, 5),
)
def test_every_job_ends_once_with_the_right_vectors(
    jobs: list[tuple[list[str | list[int]], int, bool]],
    can_split: bool,
    sums_tokens: bool,
    max_sequences: int,
) -> None:
    """Each job ends once with the right vectors, whatever is submitted or cancelled meanwhile."""
    harness = QueueHarness(
        FakeBackend(can_split=can_split, sums_tokens=sums_tokens, max_sequences=max_sequences)
    )
    for job_id, (inputs, num_steps, _) in enumerate(jobs):
        harness.queue.submit(job_id, inputs)
        for _ in range(num_steps):
            harness.queue.step()
        if job_id and jobs[job_id - 1][2]:
            harness.queue.cancel(job_id - 1)
    harness.run()
    for job_id, (inputs, _, may_be_cancelled) in enumerate(jobs):
        if not (may_be_cancelled and isinstance(harness.end(job_id), Done)):
            harness.check(job_id, inputs)


def test_many_short_inputs_are_read_over_many_steps() -> None:
    """Reading an input costs more than its characters, so a step reads a bounded number of them."""
    harness = QueueHarness()
    harness.queue.submit(1, ["x"] * 2000)
    harness.queue.step()
    assert harness.backend.num_read <= MAX_CHARS_PER_STEP // CHARS_AN_INPUT
    harness.run()
    assert len(harness.vectors(1)) == 2000


@pytest.mark.parametrize("can_split", [True, False])
def test_a_step_that_answers_wait_for_is_small(can_split: bool) -> None:
    """A shared step computes few tokens, of many inputs or of one, unless it cannot be split."""
    harness = QueueHarness(
        FakeBackend(
            can_split=can_split, max_batch_tokens=512, max_input_tokens=512, max_sequences=32
        )
    )
    inputs: list[str | list[int]] = ["x" * 300, *(["a few"] * 100)]
    harness.queue.submit(1, inputs)
    while harness.queue.has_work:
        harness.queue.step(is_shared=True)
    sizes = [sum(len(chunk.tokens) for chunk in run) for run in harness.backend.runs]
    if not can_split:
        assert sizes.pop(0) == 301
    assert max(sizes) <= MAX_SHARED_TOKENS
    harness.check(1, inputs)


class Texts(TextThread):
    """Long texts that are tokenised when a test says so."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def tokenize(self, read: Callable[[], list[int]], then: Callable[[Tokens], None]) -> None:
        def call() -> None:
            try:
                tokens: Tokens = read()
            except LlmdError as error:
                tokens = error
            then(tokens)

        self.calls.append(call)


def _with_long_input() -> tuple[QueueHarness, Texts, list[str | list[int]]]:
    """Return a queue with a job whose second of three inputs is long, up to its being away."""
    harness, texts = QueueHarness(FakeBackend(max_input_tokens=2 * LONG_CHARS)), Texts()
    harness.queue = EmbedQueue(lambda: harness.backend, harness.events.append, texts)
    inputs: list[str | list[int]] = ["cat", "x" * (LONG_CHARS + 1), "dog"]
    harness.queue.submit(1, inputs)
    harness.queue.step()
    return harness, texts, inputs


def test_a_long_input_is_tokenised_beside_the_steps() -> None:
    """The job waits for its long input without a step, while other jobs go on."""
    harness, texts, inputs = _with_long_input()
    assert (harness.queue.has_work, harness.queue.num_jobs) == (False, 1)
    harness.queue.submit(2, ["bird"])
    harness.run()
    harness.check(2, ["bird"])
    [call] = texts.calls
    call()
    harness.run()
    harness.check(1, inputs)


def test_a_job_can_be_cancelled_while_its_input_is_tokenised() -> None:
    """The tokens that come after the end of the job are dropped."""
    harness, texts, _ = _with_long_input()
    harness.queue.cancel(1)
    assert isinstance(harness.end(1), Done)
    texts.calls[0]()
    assert (harness.queue.has_work, harness.queue.num_jobs) == (False, 0)
    assert isinstance(harness.end(1), Done)


def test_a_long_input_that_is_refused_ends_its_job() -> None:
    """The refusal names the input."""
    harness, texts, _ = _with_long_input()
    harness.backend.max_input_tokens = 10
    texts.calls[0]()
    assert harness.refused(1).message.startswith("input[1] has more than")
    assert (harness.queue.has_work, harness.queue.num_jobs) == (False, 0)
