"""Continuous batching: who runs, and what comes out of each step.

Arithmetic alone: the model is behind `Backend`, and events go to a callable.
"""

from __future__ import annotations

from collections.abc import Callable

from llmd.engine.protocol import (
    Beat,
    Event,
    FinishReason,
    KeptState,
    Progress,
    Started,
    Submit,
)
from llmd.errors import InvalidField
from llmd.worker.backend import Backend, Matcher, Sampler
from llmd.worker.kv.disk import DiskStates
from llmd.worker.kv.ram import States
from llmd.worker.kv.slots import Slot, Slots
from llmd.worker.refusal import refusal
from llmd.worker.scheduling.cells import Cells
from llmd.worker.scheduling.intake import sequence_of
from llmd.worker.scheduling.prefill_budget import ReadLimit
from llmd.worker.scheduling.prompt_lookup import Draft
from llmd.worker.scheduling.queue import MAX_WAITS, Waiting
from llmd.worker.scheduling.sequence import Sequence, Status
from llmd.worker.scheduling.step import fill


class Scheduler:
    """All sequences of one model. Not thread-safe: the thread that decodes owns it.

    A step takes one token of every decoding sequence, with a guess of the next ones, or it reads
    chunks of prompts, the shortest first. Where there are both, they take turns: a new request
    joins at the next step, and a long prompt does not stall the others.
    """

    def __init__(
        self,
        backend: Backend,
        emit: Callable[[Event], None],
        *,
        max_state_bytes: int,
        clock: Callable[[], float],
        disk: DiskStates | None = None,
    ) -> None:
        self._backend = backend
        self._emit = emit
        self._clock = clock
        self._slots = Slots(backend, States(max_state_bytes, disk), disk)
        self._cells = Cells(backend.num_cells, backend.max_draft_tokens)
        self._read_limit = ReadLimit(backend.max_batch_tokens)
        self._waiting = Waiting(self._read_limit)
        self._running: dict[Sequence, Slot] = {}
        self._has_read = False
        self._num_prompt_tokens = 0
        self._num_cached_tokens = 0
        self._num_completion_tokens = 0
        self._num_drafted_tokens = 0
        self._num_accepted_tokens = 0

    @property
    def has_work(self) -> bool:
        """Whether a further step would do something."""
        return bool(self._running or self._waiting)

    def submit(self, request: Submit) -> None:
        """Prepare and queue a request, with what bounds its answer. Raise as these do."""
        sequence = self.prepare(request)
        matcher = self._backend.compile(request, is_thinking=sequence.is_thinking)
        self.enqueue(sequence, matcher)

    def prepare(self, request: Submit) -> Sequence:
        """Return a request's sequence. Raise `InvalidField` or `PromptTooLong` if it cannot be."""
        return sequence_of(self._backend, request, self._clock())

    def enqueue(self, sequence: Sequence, matcher: Matcher | None) -> None:
        """Queue a sequence; `matcher` bounds its answer."""
        sequence.sampler = self._backend.sampler(sequence.request, sequence.tokens, matcher)
        if self._backend.max_draft_tokens:
            sequence.draft = Draft(self._backend.max_draft_tokens)
        if self.has_work:
            sequence.num_computed = self._slots.num_warm(sequence.request.owner, sequence.tokens)
        self._waiting.add(sequence)

    def kept(self) -> list[KeptState]:
        """Return what is warm of every session, the quickest to go on from first."""
        return list(self._slots.kept())

    def save_one(self) -> bool:
        """Put one state of an idle session to the disk; False when all are there."""
        return self._slots.save_one()

    def cancel(self, request_id: int) -> None:
        """End a request wherever it is. One that has ended already is left alone."""
        for sequence in (*self._waiting, *self._running):
            if sequence.request.id == request_id:
                self._finish(sequence, "cancelled")
                self.beat(0.0, 0)
                return

    def forget(self, owner: str, session: str | None) -> None:
        """Drop the KV of an owner's session, or of all its sessions.

        That of requests that wait or run goes when they have ended.
        """
        for sequence in self._waiting:
            request = sequence.request
            if request.owner == owner and session in (None, request.session):
                sequence.forgotten = True
        self._slots.forget(owner, session)
        self._backend.forget(owner)

    def step(self) -> None:
        """Admit what fits, run one batch, take the tokens of each sequence that is ready."""
        has_answers = any(one.status is Status.DECODE for one in self._running)
        reads = not (has_answers and self._has_read)
        if reads and self._waiting:
            self._admit()
        if not self._running:
            return
        if self._backend.num_cells:
            self._make_room()
        began = self._clock()
        most = self._read_limit.num_tokens if has_answers else self._backend.max_batch_tokens
        filling = fill(self._backend, self._running, self._slots.idle, most if reads else 0)
        filling.run()
        self._has_read = filling.num_read > 0
        if self._has_read:
            self._read_limit.learn(filling.num_read, self._clock() - began)
            self._share()
        for sequence, row in filling.rows:
            self._take_all(sequence, row)
        self.beat(self._clock() - began, filling.num_tokens)
        if not self.has_work and self._slots.num_free != self._backend.max_sequences:
            raise RuntimeError("a slot was lost")

    def _share(self) -> None:
        """Keep the beginnings that were computed for the first time."""
        for sequence, slot in self._running.items():
            number = sequence.num_shareable
            if number and sequence.num_computed == number:
                self._slots.share(slot, sequence.tokens[:number])
                sequence.num_shareable = 0

    def beat(self, step_s: float, num_tokens: int) -> None:
        """Tell where the scheduler is; a `step_s` of 0 is no step."""
        self._emit(
            Beat(
                num_running=len(self._running),
                num_waiting=len(self._waiting),
                num_prompt_tokens=self._num_prompt_tokens,
                num_cached_tokens=self._num_cached_tokens,
                num_completion_tokens=self._num_completion_tokens,
                num_drafted_tokens=self._num_drafted_tokens,
                num_accepted_tokens=self._num_accepted_tokens,
                num_step_tokens=num_tokens,
                step_s=step_s,
            )
        )

    def _admit(self) -> None:
        """Move waiting sequences to free slots, as many as there is time to read."""
        while self._slots.num_free:
            sequence = self._waiting.take(
                (one for one in self._running if one.status is Status.PREFILL),
                lambda one: self._cells.admits(one, self._running.keys()),
            )
            if sequence is None:
                return
            request = sequence.request
            room = self._cells.left_by(self._running.keys())
            slot, num_cached = self._slots.acquire(
                request.owner, request.session, sequence.tokens, room
            )
            slot.forgotten = sequence.forgotten
            self._running[sequence] = slot
            sequence.num_computed = num_cached
            if self._slots.knows(sequence.tokens[: sequence.num_shareable]):
                sequence.num_shareable = 0
            sequence.status = Status.PREFILL
            # One that had to give its slot back was started before.
            if not sequence.started_at:
                self._tell_start(sequence)

    def _tell_start(self, sequence: Sequence) -> None:
        sequence.started_at = self._clock()
        self._num_cached_tokens += sequence.num_computed
        self._num_prompt_tokens += sequence.num_prompt_tokens
        self._emit(
            Started(
                id=sequence.request.id,
                num_prompt_tokens=sequence.num_prompt_tokens,
                num_cached_tokens=sequence.num_computed,
                num_turns=sequence.num_turns,
            )
        )

    def _make_room(self) -> None:
        """See that this step finds free cells: who came last waits again, with its state kept."""
        while self._cells.left_by(self._running.keys()) < 0:
            sequence, slot = self._running.popitem()
            sequence.forgotten = sequence.forgotten or slot.forgotten
            self._slots.set_aside(slot, sequence.tokens[: sequence.num_computed])
            sequence.status = Status.WAITING
            sequence.num_waits = MAX_WAITS
            self._waiting.add(sequence)
        self._slots.make_room(self._cells.left_by(self._running.keys()))

    def _take_all(self, sequence: Sequence, row: int) -> None:
        """Sample a sequence's next token, and further ones as long as they were guessed.

        Each is sampled as if there had been no guess, so guesses change no answer.
        """
        guess = sequence.guess
        if not guess:
            self._take(sequence, row)
            return
        num_right = 0
        for offset in range(len(guess) + 1):
            self._take(sequence, row + offset)
            if sequence.status is Status.FINISHED:
                return
            if offset == len(guess) or sequence.tokens[-1] != guess[offset]:
                break
            num_right += 1
            # Its keys and values are there already.
            sequence.num_computed += 1
        if sequence.draft is not None:
            sequence.draft.learn(len(guess), num_right)
            self._num_drafted_tokens += len(guess)
            self._num_accepted_tokens += num_right
            self._take_back(sequence)

    def _take_back(self, sequence: Sequence) -> None:
        """Drop the keys and values of what was guessed wrong."""
        if sequence.guess:
            sequence.guess = []
            self._backend.truncate(self._running[sequence].index, sequence.num_computed)

    def _take(self, sequence: Sequence, row: int) -> None:
        """Sample a sequence's next token and send its text."""
        if sequence.status is Status.PREFILL:
            sequence.status = Status.DECODE
            sequence.decoded_at = sequence.decoded_at or self._clock()
        sampler = _sampler_of(sequence)
        try:
            token = sampler.sample(row)
        except InvalidField as error:
            self._leave(sequence)
            self._emit(refusal(sequence.request.id, error))
            return
        if self._backend.is_end(token) and not sequence.request.ignores_end:
            self._finish(sequence, "stop")
            return
        sequence.tokens.append(token)
        self._num_completion_tokens += 1
        stream = sequence.stream
        piece = self._backend.piece(token, special=stream.shows_special)
        self._send(stream.push(piece, sampler.logprob))
        if stream.stopped or sampler.is_complete:
            self._finish(sequence, "stop")
        elif sequence.is_full:
            self._finish(sequence, "length")

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        """End a sequence, whatever its state."""
        stream = sequence.stream
        if reason != "cancelled":
            self._send(stream.finish())
        if reason == "stop" and stream.has_calls:
            reason = "tool_calls"
        self._leave(sequence)
        self._emit(sequence.done(reason, self._clock()))

    def _leave(self, sequence: Sequence) -> None:
        """Take a sequence out of wherever it is: the only place that does."""
        if sequence.status is Status.WAITING:
            self._waiting.remove(sequence)
        else:
            self._take_back(sequence)
            slot = self._running.pop(sequence)
            self._slots.release(slot, sequence.tokens[: sequence.num_computed])
        _sampler_of(sequence).close()
        sequence.status = Status.FINISHED

    def _send(self, events: list[Progress]) -> None:
        for event in events:
            self._emit(event)


def _sampler_of(sequence: Sequence) -> Sampler:
    sampler = sequence.sampler
    assert sampler is not None, "a sequence was queued without its sampler"  # noqa: S101
    return sampler
