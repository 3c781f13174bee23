"""Compute vectors for texts: queue jobs, and choose the inputs of each step.

This module does not depend on llama.cpp. The model is an `EmbeddingBackend`, and events go to a
callable.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from llmd.engine.protocol import Done, Embedded, Event, refusal_event
from llmd.errors import InvalidField, LlmdError, PromptTooLong
from llmd.worker.backend import EmbeddingBackend, EmbeddingChunk, Vector
from llmd.worker.prompt.fit import CHARS_A_TOKEN, MIN_CHECKED_CHARS
from llmd.worker.text_thread import LONG_CHARS, TextThread

MAX_VECTORS_BYTES = 32 * 1024 * 1024
"""Size limit of the vectors that a step sends, half the size limit of a frame to the daemon."""

MAX_CHARS_PER_STEP = 16_384
"""After this many characters, or tokens from a client, a step reads no further input.

That takes some 10 ms, by which running answers wait longer.
"""

MAX_SHARED_TOKENS = 32
"""How many tokens a step computes while answers wait for it.

With a model of 135 M parameters, a whole batch took 2.4 s on one core, and 64 tokens took 0.7 s.
The number is fixed, because vectors that depend on the time of a step would differ from run to run.
"""

CHARS_AN_INPUT = 128
"""The number of characters that take as long as everything else about an input, some 0.05 ms."""


@dataclass(eq=False)
class _Job:
    """One request, with its inputs as received, as tokens and as vectors."""

    id: int
    unread: deque[str | list[int]]
    num_inputs: int
    waiting: deque[_Input] = field(default_factory=deque)
    vectors: list[bytes] = field(default_factory=list)
    num_tokens: int = 0

    @property
    def next_name(self) -> str:
        """The name of the next input, for errors."""
        return f"input[{len(self.waiting)}]" if self.num_inputs > 1 else "the input"

    def add(self, tokens: list[int]) -> None:
        """Add the tokens of the next input."""
        self.num_tokens += len(tokens)
        self.waiting.append(_Input(self, tokens))


@dataclass(eq=False)
class _Input:
    """One input of a job. `num_done` of its tokens are computed or in the current batch."""

    job: _Job
    tokens: list[int]
    num_done: int = 0
    vector: Vector | None = None


class EmbedQueue:
    """All embedding jobs of one model. Not thread-safe: the decoding thread owns it.

    Jobs take turns at being first in a step. The first job puts as many whole inputs into the
    batch as fit, and the next jobs fill the rest. Only one input at a time is split into chunks,
    so that the memory suffices for the longest input.
    """

    def __init__(
        self,
        make_backend: Callable[[], EmbeddingBackend],
        emit: Callable[[Event], None],
        texts: TextThread | None = None,
    ) -> None:
        """Create an empty queue. The backend is made for the first job.

        Long inputs are tokenised in the thread of `texts`, if it is given.
        """
        self._make_backend = make_backend
        self._emit = emit
        self._texts = texts
        self._made_backend: EmbeddingBackend | None = None
        self._reading: deque[_Job] = deque()
        # Jobs with an input in the thread of texts. They go on when it comes back.
        self._away: list[_Job] = []
        self._jobs: deque[_Job] = deque()
        self._split: _Input | None = None
        self._finished: deque[Embedded] = deque()
        self.num_tokens = 0
        """Number of tokens computed since the start."""

    @property
    def has_work(self) -> bool:
        """Whether a further step would read, compute or send anything."""
        return bool(self._reading or self._jobs or self._finished)

    @property
    def num_jobs(self) -> int:
        """Number of jobs that have not ended."""
        return len(self._reading) + len(self._away) + len(self._jobs) + len(self._finished)

    def submit(self, job_id: int, inputs: list[str | list[int]]) -> None:
        """Queue a job. It ends with an event `Embedded`, or `Refused` if an input is invalid."""
        try:
            backend = self._backend()
        except LlmdError as error:
            self._refuse(job_id, error)
            return
        max_inputs = MAX_VECTORS_BYTES // (4 * backend.num_dimensions)
        if len(inputs) > max_inputs:
            message = (
                f"there are {len(inputs)} inputs, but one request may have at most {max_inputs}"
            )
            self._refuse(job_id, InvalidField(message))
        elif not inputs:
            self._refuse(job_id, InvalidField("there is nothing to embed: give at least one text"))
        else:
            self._reading.append(_Job(job_id, deque(inputs), len(inputs)))

    def cancel(self, job_id: int) -> None:
        """End a job with the event `Done`. Do nothing if there is no such job or it has ended."""
        for job in (*self._reading, *self._away, *self._jobs):
            if job.id == job_id:
                self._drop(job)
                self._emit(
                    Done(
                        id=job_id,
                        finish_reason="cancelled",
                        num_completion_tokens=0,
                        queue_ms=0.0,
                        prefill_ms=0.0,
                        decode_ms=0.0,
                    )
                )
                return

    def step(self, *, is_shared: bool = False) -> int:
        """Tokenise some inputs, run one batch, and end the jobs that are complete.

        The batch is small if `is_shared`: answers wait for its end. Return the number of tokens in
        the batch.
        """
        self._read()
        batch = self._fill(is_shared=is_shared)
        if batch:
            vectors = self._backend().run([chunk for _, chunk in batch])
            for (item, chunk), vector in zip(batch, vectors, strict=True):
                self._add_vector(item, chunk, vector)
        self._send()
        num_tokens = sum(len(chunk.tokens) for _, chunk in batch)
        self.num_tokens += num_tokens
        return num_tokens

    def _backend(self) -> EmbeddingBackend:
        if self._made_backend is None:
            self._made_backend = self._make_backend()
        return self._made_backend

    def _read(self) -> None:
        """Tokenise inputs of one job after another, up to `MAX_CHARS_PER_STEP`."""
        num_chars = 0
        while self._reading and num_chars < MAX_CHARS_PER_STEP:
            job = self._reading.popleft()
            while job.unread and num_chars < MAX_CHARS_PER_STEP:
                text_or_tokens = job.unread.popleft()
                if self._texts is not None and _is_long(text_or_tokens):
                    self._read_aside(self._texts, job, text_or_tokens)
                    break
                num_chars += len(text_or_tokens) + CHARS_AN_INPUT
                try:
                    tokens = _tokenize(self._backend(), text_or_tokens, job.next_name)
                except LlmdError as error:
                    self._refuse(job.id, error)
                    break
                job.add(tokens)
            else:
                (self._reading if job.unread else self._jobs).append(job)

    def _read_aside(self, texts: TextThread, job: _Job, text: str | list[int]) -> None:
        """Tokenise an input in the thread of texts. The job goes on when that is done."""
        backend, name = self._backend(), job.next_name

        def go_on(tokens: list[int] | LlmdError) -> None:
            if job not in self._away:
                return
            self._away.remove(job)
            if isinstance(tokens, LlmdError):
                self._refuse(job.id, tokens)
                return
            job.add(tokens)
            (self._reading if job.unread else self._jobs).append(job)

        self._away.append(job)
        texts.tokenize(lambda: _tokenize(backend, text, name), go_on)

    def _fill(self, *, is_shared: bool) -> list[tuple[_Input, EmbeddingChunk]]:
        """Return the chunks of the next batch, and move the first job in it to the end."""
        batch: list[tuple[_Input, EmbeddingChunk]] = []
        num_max = self._backend().max_batch_tokens
        if is_shared:
            num_max = min(num_max, MAX_SHARED_TOKENS)
        for job in list(self._jobs):
            is_first = not batch
            self._fill_from(job, batch, num_max)
            if is_first and batch:
                self._jobs.remove(job)
                self._jobs.append(job)
        return batch

    def _fill_from(
        self, job: _Job, batch: list[tuple[_Input, EmbeddingChunk]], num_max: int
    ) -> None:
        """Add as much of one job to the batch, of up to `num_max` tokens, as fits."""
        backend = self._backend()
        num_free = num_max - sum(len(chunk.tokens) for _, chunk in batch)
        while job.waiting and num_free > 0:
            item = job.waiting[0]
            num_left = len(item.tokens) - item.num_done
            if item is self._split:
                slot = 0
            elif num_left <= num_free or not (backend.can_split or batch):
                slot = 1 + sum(chunk.slot > 0 for _, chunk in batch)
            elif backend.can_split and self._split is None:
                self._split = item
                slot = 0
            else:
                return
            if slot >= backend.max_sequences:
                return
            num_taken = min(num_left, num_free) if backend.can_split else num_left
            begin = item.num_done
            item.num_done += num_taken
            num_free -= num_taken
            is_last = num_taken == num_left
            if is_last:
                job.waiting.popleft()
            batch.append(
                (item, EmbeddingChunk(slot, begin, item.tokens[begin : item.num_done], is_last))
            )

    def _add_vector(self, item: _Input, chunk: EmbeddingChunk, vector: Vector) -> None:
        """Add a chunk's vector to its input, and a complete input's vector to its job."""
        job = item.job
        if job not in self._jobs:
            return
        before = item.vector if self._backend().sums_tokens else None
        item.vector = vector if before is None else before + vector
        if not chunk.is_last:
            return
        if item is self._split:
            self._split = None
        if not np.isfinite(item.vector).all():
            self._drop(job)
            message = "the model computes no usable vector for the input: it is not finite"
            self._refuse(job.id, InvalidField(message))
            return
        job.vectors.append(_normalised(item.vector).tobytes())
        if len(job.vectors) == job.num_inputs:
            self._jobs.remove(job)
            self._finished.append(
                Embedded(id=job.id, vectors=job.vectors, num_tokens=job.num_tokens)
            )

    def _send(self) -> None:
        """Emit the vectors of complete jobs, of no more jobs than fit into one frame."""
        num_bytes = 0
        while self._finished:
            num_bytes += sum(map(len, self._finished[0].vectors))
            if num_bytes > MAX_VECTORS_BYTES:
                return
            self._emit(self._finished.popleft())

    def _drop(self, job: _Job) -> None:
        for jobs in (self._reading, self._away, self._jobs):
            if job in jobs:
                jobs.remove(job)
        if self._split is not None and self._split.job is job:
            self._split = None

    def _refuse(self, job_id: int, error: LlmdError) -> None:
        self._emit(refusal_event(job_id, error, param="input"))


def _is_long(text_or_tokens: str | list[int]) -> bool:
    return isinstance(text_or_tokens, str) and len(text_or_tokens) > LONG_CHARS


def _tokenize(backend: EmbeddingBackend, text_or_tokens: str | list[int], name: str) -> list[int]:
    """Return the tokens of an input. Raise `InvalidField` or `PromptTooLong` that names it."""
    num_max = backend.max_input_tokens
    if isinstance(text_or_tokens, list):
        tokens = text_or_tokens
        for token in tokens:
            if not 0 <= token < backend.num_vocabulary:
                last = backend.num_vocabulary - 1
                raise InvalidField(f"{name}: the model has no token {token}: its last is {last}")
    else:
        num_chars = max(MIN_CHECKED_CHARS, CHARS_A_TOKEN * num_max)
        if len(text_or_tokens) > num_chars:
            # Check the beginning first, because tokenising a megabyte would stall all other jobs.
            num_tokens = len(backend.tokenize(text_or_tokens[:num_chars]))
            if num_tokens > num_max:
                raise _too_long(name, f"more than {num_tokens}", num_tokens, num_max)
        tokens = backend.tokenize(text_or_tokens)
    if not text_or_tokens or not tokens:
        raise InvalidField(f"{name} is empty")
    if len(tokens) > num_max:
        raise _too_long(name, f"{len(tokens)}", len(tokens), num_max)
    return tokens


def _too_long(name: str, number: str, num_tokens: int, num_max: int) -> PromptTooLong:
    error = PromptTooLong(num_tokens, num_max)
    error.message = f"{name} has {number} tokens, but the model takes {num_max}: shorten it"
    return error


def _normalised(vector: Vector) -> Vector:
    """Return the vector scaled to length 1. A vector of zeros is returned as it is."""
    length = float(np.linalg.norm(vector.astype(np.float64)))
    return (vector / (length or 1.0)).astype(np.float32)
