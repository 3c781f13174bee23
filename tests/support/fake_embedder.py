"""A queue of embeddings with a fake model whose vectors are simple to compute."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from llmd.engine.protocol import Embedded, Event, Refused
from llmd.worker.backend import EmbeddingChunk, Vector
from llmd.worker.embedding.queue import EmbedQueue

BEGIN = 1
"""The token before each text. All other tokens are bytes."""

NOTHING = 0
"""A token whose vector is zero."""


def vector_of(token: int) -> Vector:
    """Return the vector of a token."""
    if token == NOTHING:
        return np.zeros(4, np.float32)
    return np.array([token, token % 7, token % 3, 1.0], np.float32)


class FakeBackend:
    """A model that checks how its memory is used. If not `sums_tokens`, the last token counts."""

    num_vocabulary = 256
    num_dimensions = 4

    def __init__(
        self,
        *,
        can_split: bool = True,
        sums_tokens: bool = True,
        max_batch_tokens: int = 8,
        max_input_tokens: int = 64,
        max_sequences: int = 4,
    ) -> None:
        self.can_split = can_split
        self.sums_tokens = sums_tokens
        self.max_batch_tokens = max_batch_tokens
        self.max_input_tokens = max_input_tokens
        self.max_sequences = max_sequences
        self.resident: list[list[int]] = [[] for _ in range(max_sequences)]
        self.runs: list[list[EmbeddingChunk]] = []
        self.num_read = 0
        self.makes_infinite = False

    def tokenize(self, text: str) -> list[int]:
        self.num_read += len(text)
        return [BEGIN, *text.encode()]

    def run(self, chunks: list[EmbeddingChunk]) -> list[Vector]:
        assert chunks, "a run without chunks"
        assert len({chunk.slot for chunk in chunks}) == len(chunks), "two inputs in one slot"
        num_tokens = sum(len(chunk.tokens) for chunk in chunks)
        if self.can_split or len(chunks) > 1:
            assert num_tokens <= self.max_batch_tokens, "more than a batch holds"
        self.runs.append(chunks)
        vectors = [self._run(chunk) for chunk in chunks]
        num_resident = sum(map(len, self.resident))
        assert num_resident <= self.max_input_tokens + self.max_batch_tokens, "memory is full"
        for chunk in chunks:
            if chunk.is_last:
                self.resident[chunk.slot].clear()
        return vectors

    def _run(self, chunk: EmbeddingChunk) -> Vector:
        assert chunk.tokens, "a chunk without tokens"
        resident = self.resident[chunk.slot]
        if chunk.begin == 0:
            resident.clear()
        assert chunk.begin == len(resident), "a gap, or a token computed twice"
        resident += chunk.tokens
        assert len(resident) <= self.max_input_tokens
        assert chunk.is_last or self.can_split, "an input was split"
        if self.makes_infinite:
            return np.full(4, np.inf, np.float32)
        if self.sums_tokens:
            return sum(map(vector_of, chunk.tokens), np.zeros(4, np.float32))
        return vector_of(resident[-1])


class QueueHarness:
    """A queue with a fake model, and the events that it emitted."""

    def __init__(self, backend: FakeBackend | None = None) -> None:
        self.backend = backend or FakeBackend()
        self.events: list[Event] = []
        self.num_made = 0
        self.queue = EmbedQueue(self._make, self.events.append)

    def _make(self) -> FakeBackend:
        self.num_made += 1
        return self.backend

    def run(self) -> None:
        while self.queue.has_work:
            self.queue.step()

    def steps_until(self, condition: Callable[[], object]) -> int:
        """Return the number of steps until the condition holds."""
        for number in range(1, 1000):
            self.queue.step()
            if condition():
                return number
        raise AssertionError("the condition never held")

    def end(self, job_id: int) -> Event | None:
        """Return the event that ended a job, or None."""
        ends = [event for event in self.events if getattr(event, "id", None) == job_id]
        assert len(ends) <= 1, "a job ended twice"
        return ends[0] if ends else None

    def vectors(self, job_id: int) -> list[Vector]:
        """Return the vectors of a job that succeeded."""
        event = self.end(job_id)
        assert isinstance(event, Embedded)
        return [np.frombuffer(vector, np.float32) for vector in event.vectors]

    def refused(self, job_id: int) -> Refused:
        """Return the refusal of a job."""
        event = self.end(job_id)
        assert isinstance(event, Refused)
        assert event.param == "input"
        return event

    def expected(self, raw: str | list[int]) -> Vector:
        """Compute an input's vector without queue and chunks."""
        tokens = [BEGIN, *raw.encode()] if isinstance(raw, str) else raw
        if not self.backend.sums_tokens:
            tokens = tokens[-1:]
        mean = np.mean([vector_of(token) for token in tokens], axis=0)
        length = np.linalg.norm(mean)
        return np.asarray(mean / length if length else mean, np.float32)

    def check(self, job_id: int, inputs: list[str | list[int]]) -> None:
        """Check that a job returned the right vector for each input."""
        vectors = self.vectors(job_id)
        assert len(vectors) == len(inputs)
        for vector, raw in zip(vectors, inputs, strict=True):
            np.testing.assert_allclose(vector, self.expected(raw), rtol=1e-5)
