"""The queue of embeddings: turns, chunks and vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.engine.protocol import Done, Embedded
from tests.support.fake_embedder import NOTHING, FakeBackend, House


def test_a_job_brings_a_vector_for_each_input_in_order() -> None:
    """Each of length 1, and the tokens of all are counted."""
    house = House()
    inputs: list[str | list[int]] = ["cat", "a dog", [9, 8, 7], "x" * 30, "cat"]
    house.queue.submit(5, inputs)
    house.run()
    house.check(5, inputs)
    assert all(np.linalg.norm(vector) == pytest.approx(1.0) for vector in house.vectors(5))
    event = house.end(5)
    assert isinstance(event, Embedded)
    assert event.num_tokens == 4 + 6 + 3 + 31 + 4
    assert house.queue.num_tokens == event.num_tokens
    assert (house.queue.has_work, house.queue.num_jobs) == (False, 0)


def test_a_vector_of_zeros_stays_as_it_is() -> None:
    """It has no direction that could be given the length 1."""
    house = House()
    house.queue.submit(1, [[NOTHING]])
    house.run()
    assert house.vectors(1)[0].tolist() == [0, 0, 0, 0]


def test_short_inputs_share_a_run() -> None:
    """As many as there are tokens and slots for, of one job and of several."""
    house = House(FakeBackend(max_batch_tokens=8, max_sequences=4))
    house.queue.submit(1, [[2], [3], [4], [5]])
    house.queue.submit(2, [[6, 6, 6], [7]])
    house.queue.step()
    assert [chunk.tokens for chunk in house.backend.runs[0]] == [[2], [3], [4]]
    house.queue.step()
    assert [chunk.tokens for chunk in house.backend.runs[1]] == [[6, 6, 6], [7], [5]]
    assert not house.queue.has_work


@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize("max_batch_tokens", [2, 3, 8, 32, 64])
def test_the_vector_is_the_same_in_whatever_chunks_it_was_made(
    sums: bool, max_batch_tokens: int
) -> None:
    """The mean over all tokens, or what the model makes of the last one."""
    house = House(FakeBackend(sums=sums, max_batch_tokens=max_batch_tokens))
    text = "the quick brown fox jumps over the lazy dog"
    house.queue.submit(1, [text])
    house.run()
    house.check(1, [text])
    assert len(house.backend.runs) == -(-(1 + len(text)) // max_batch_tokens)


def test_a_model_that_reads_inputs_whole_takes_a_long_one_alone() -> None:
    """It is one run however long it is, and short ones before and after it share theirs."""
    house = House(FakeBackend(splits=False, sums=False))
    inputs: list[str | list[int]] = [[2], [3], [4] * 20, [5], [6] * 8, [7]]
    house.queue.submit(1, inputs)
    house.run()
    house.check(1, inputs)
    lengths = [[len(chunk.tokens) for chunk in run] for run in house.backend.runs]
    assert lengths == [[1, 1], [20], [1], [8], [1]]


def test_a_single_text_does_not_wait_for_a_large_batch() -> None:
    """Jobs take turns, so that it comes to its own in the next step but one."""
    house = House()
    house.queue.submit(1, ["seven.."] * 500)
    house.queue.step()
    house.queue.submit(2, ["one"])
    assert house.steps_until(lambda: house.end(2)) <= 2
    house.run()
    house.check(1, ["seven.."] * 500)


def test_a_short_text_goes_on_beside_a_long_one() -> None:
    """Chunks of the long one are of turns like others, and it loses nothing by that."""
    house = House()
    house.queue.submit(1, ["x" * 60])
    house.queue.step()
    house.queue.submit(2, ["one", "two", "three"])
    assert house.steps_until(lambda: house.end(2)) <= 5
    assert house.end(1) is None
    house.run()
    house.check(1, ["x" * 60])
    house.check(2, ["one", "two", "three"])


def test_one_input_at_a_time_is_in_chunks() -> None:
    """A second long one waits, and short ones do not wait for it."""
    house = House()
    house.queue.submit(1, ["x" * 60])
    house.queue.submit(2, ["y" * 60])
    house.queue.submit(3, ["z"])
    house.steps_until(lambda: house.end(3))
    assert house.end(1) is None
    house.run()
    assert [event.id for event in house.events if isinstance(event, Embedded)] == [3, 1, 2]
    for job_id, text in ((1, "x" * 60), (2, "y" * 60)):
        house.check(job_id, [text])


def test_a_cancelled_job_ends_at_once() -> None:
    """Wherever it is: unread, waiting or in chunks, whose place the next one then takes."""
    house = House()
    house.queue.submit(1, ["x" * 60])
    house.queue.step()
    house.queue.submit(2, ["y" * 60, "y"])
    house.queue.submit(3, ["z" * 60])
    house.queue.cancel(2)
    house.queue.step()
    house.queue.cancel(1)
    house.queue.cancel(99)
    for job_id in (1, 2):
        event = house.end(job_id)
        assert isinstance(event, Done)
        assert event.finish_reason == "cancelled"
    assert house.queue.num_jobs == 1
    house.run()
    house.check(3, ["z" * 60])
    house.queue.cancel(3)
    assert isinstance(house.end(3), Embedded)


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
    splits=st.booleans(),
    sums=st.booleans(),
    max_sequences=st.integers(2, 5),
)
def test_every_job_ends_once_and_rightly(
    jobs: list[tuple[list[str | list[int]], int, bool]],
    splits: bool,
    sums: bool,
    max_sequences: int,
) -> None:
    """Whatever comes in between, whatever is cancelled; the fake checks its memory meanwhile."""
    house = House(FakeBackend(splits=splits, sums=sums, max_sequences=max_sequences))
    for job_id, (inputs, num_steps, _) in enumerate(jobs):
        house.queue.submit(job_id, inputs)
        for _ in range(num_steps):
            house.queue.step()
        if job_id and jobs[job_id - 1][2]:
            house.queue.cancel(job_id - 1)
    house.run()
    for job_id, (inputs, _, may_be_cancelled) in enumerate(jobs):
        if not (may_be_cancelled and isinstance(house.end(job_id), Done)):
            house.check(job_id, inputs)
