"""What tests of embeddings share: a queue over a model that is arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from llmd.engine.protocol import Embedded, Event, Refused
from llmd.worker.embedding.queue import EmbedQueue
from llmd.worker.embedding_backend import Chunk, Vector

BEGIN = 1
"""The token before every text; the others are bytes."""

NOTHING = 0
"""A token whose vector is zero."""


def vector_of(token: int) -> Vector:
    """Return the vector of a token."""
    if token == NOTHING:
        return np.zeros(4, np.float32)
    return np.array([token, token % 7, token % 3, 1.0], np.float32)


class FakeBackend:
    """A model whose memory checks every use of it. One that does not sum takes the last token."""

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
        self.runs: list[list[Chunk]] = []
        self.num_read = 0
        self.spoils = False

    def tokenize(self, text: str) -> list[int]:
        self.num_read += len(text)
        return [BEGIN, *text.encode()]

    def run(self, chunks: list[Chunk]) -> list[Vector]:
        assert chunks, "a run of nothing"
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

    def _run(self, chunk: Chunk) -> Vector:
        assert chunk.tokens, "a chunk of nothing"
        resident = self.resident[chunk.slot]
        if chunk.begin == 0:
            resident.clear()
        assert chunk.begin == len(resident), "a gap or a token twice"
        resident += chunk.tokens
        assert len(resident) <= self.max_input_tokens
        assert chunk.is_last or self.can_split, "an input was cut"
        if self.spoils:
            return np.full(4, np.inf, np.float32)
        if self.sums_tokens:
            return sum(map(vector_of, chunk.tokens), np.zeros(4, np.float32))
        return vector_of(resident[-1])


class QueueHarness:
    """A queue over a fake model, and all that it told."""

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

    def steps_until(self, is_so: Callable[[], object]) -> int:
        """Return how many steps it takes until something is so."""
        for number in range(1, 1000):
            self.queue.step()
            if is_so():
                return number
        raise AssertionError("it never came to be so")

    def end(self, job_id: int) -> Event | None:
        """Return what a job ended by."""
        ends = [event for event in self.events if getattr(event, "id", None) == job_id]
        assert len(ends) <= 1, "a job ended twice"
        return ends[0] if ends else None

    def vectors(self, job_id: int) -> list[Vector]:
        """Return the vectors of a job that ended well."""
        event = self.end(job_id)
        assert isinstance(event, Embedded)
        return [np.frombuffer(vector, np.float32) for vector in event.vectors]

    def refused(self, job_id: int) -> Refused:
        """Return why a job was refused."""
        event = self.end(job_id)
        assert isinstance(event, Refused)
        assert event.param == "input"
        return event

    def expected(self, raw: str | list[int]) -> Vector:
        """Work out an input's vector without queue and chunks."""
        tokens = [BEGIN, *raw.encode()] if isinstance(raw, str) else raw
        if not self.backend.sums_tokens:
            tokens = tokens[-1:]
        mean = np.mean([vector_of(token) for token in tokens], axis=0)
        length = np.linalg.norm(mean)
        return np.asarray(mean / length if length else mean, np.float32)

    def check(self, job_id: int, inputs: list[str | list[int]]) -> None:
        """Check that a job gave the right vector for each of its inputs."""
        vectors = self.vectors(job_id)
        assert len(vectors) == len(inputs)
        for vector, raw in zip(vectors, inputs, strict=True):
            np.testing.assert_allclose(vector, self.expected(raw), rtol=1e-5)
