"""Continuous batching: which sequences run, and the outcome of each step.

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
    refusal_event,
)
from llmd.errors import InvalidField
from llmd.worker.backend import Backend, Matcher, Sampler
from llmd.worker.kv.disk import DiskStates
from llmd.worker.kv.slots import Slot
from llmd.worker.kv.tiers import KvTiers
from llmd.worker.scheduling.cells import Cells
from llmd.worker.scheduling.intake import sequence_of
from llmd.worker.scheduling.prefill_budget import PrefillBudget
from llmd.worker.scheduling.prompt_lookup import PromptLookup
from llmd.worker.scheduling.queue import MAX_PASSED_OVER, WaitingQueue
from llmd.worker.scheduling.sequence import Sequence, Status
from llmd.worker.scheduling.step import Step, plan_step
from llmd.worker.scheduling.step_cost import StepCost

MAX_STEP_S = 10.0
"""The longest that a step should take, even alone: the daemon kills a worker that seems to hang.

Its limit is ``[engine] stall_s``, 30 s by default.
"""


class Scheduler:
    """All sequences of one model. Not thread-safe: the thread that decodes owns it.

    A step takes one token of every decoding sequence, with a draft of the next ones, or it reads
    chunks of prompts, the shortest first. The two kinds of steps take turns: a new request joins
    at the next step, and a long prompt does not stall the others.
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
        self._kv = KvTiers(backend, max_state_bytes, disk)
        self._cells = Cells(backend.num_cells, backend.max_draft_tokens)
        self._cost = StepCost(
            backend.measured_steps_s,
            backend.max_batch_tokens,
            can_pad=backend.can_pad,
            attention_share=backend.attention_share,
        )
        self._max_read = self._cost.rows_within(MAX_STEP_S)
        self._budget = PrefillBudget(self._max_read)
        self._waiting = WaitingQueue(self._budget)
        self._running: dict[Sequence, Slot] = {}
        self._last_was_prefill = False
        self._num_prompt_tokens = 0
        self._num_cached_tokens = 0
        self._num_completion_tokens = 0
        self._num_drafted_tokens = 0
        self._num_accepted_tokens = 0

    @property
    def has_work(self) -> bool:
        """Whether a further step would do something."""
        return bool(self._running or self._waiting)

    # Requests

    def submit(self, request: Submit) -> None:
        """Prepare and queue a request, with its grammar compiled here.

        Raise `InvalidField` or `PromptTooLong`.
        """
        sequence = self.prepare(request)
        matcher = self._backend.compile(request, is_thinking=sequence.is_thinking)
        self.enqueue(sequence, matcher)

    def prepare(self, request: Submit) -> Sequence:
        """Return the sequence of a request. Raise `InvalidField` or `PromptTooLong`."""
        sequence = sequence_of(self._backend, request, self._clock())
        if not self._kv.needs_checkpoints:
            sequence.checkpoints = []
        return sequence

    def enqueue(self, sequence: Sequence, matcher: Matcher | None) -> None:
        """Queue a sequence; `matcher` constrains its answer."""
        sequence.sampler = self._backend.sampler(sequence.request, sequence.tokens, matcher)
        if self._backend.max_draft_tokens:
            sequence.lookup = PromptLookup(self._backend.max_draft_tokens)
        if self.has_work:
            sequence.num_expected = self._kv.num_warm(sequence.request.owner, sequence.tokens)
        self._waiting.add(sequence)

    def cancel(self, request_id: int) -> None:
        """End a request, waiting or running. One that has ended already is ignored."""
        for sequence in (*self._waiting, *self._running):
            if sequence.request.id == request_id:
                self._finish(sequence, "cancelled")
                self.beat(0.0, 0)
                return

    # KV states

    def kept(self) -> list[KeptState]:
        """Return what is kept of every conversation, the quickest tier first."""
        return list(self._kv.listing())

    def save_one(self) -> bool:
        """Write one state of an idle conversation to the disk; return False if there is none."""
        return self._kv.save_one()

    def forget(self, owner: str, session: str | None) -> None:
        """Drop the KV states of an owner's session, or of all the owner's sessions.

        States of requests that wait or run are dropped when these have ended.
        """
        for sequence in self._waiting:
            if sequence.conversation.belongs_to(owner, session):
                sequence.forgotten = True
        self._kv.forget(owner, session)
        self._backend.forget(owner)

    # Steps

    def step(self) -> None:
        """Admit what fits, run one batch, and sample for each sequence that is ready."""
        has_answers = any(one.status is Status.DECODE for one in self._running)
        may_read = not (has_answers and self._last_was_prefill)
        if may_read and self._waiting:
            self._admit()
        if not self._running:
            return
        if self._backend.num_cells:
            self._make_room()
        began = self._clock()
        step = self._plan(has_answers=has_answers, may_read=may_read)
        rows = step.run(self._backend)
        step.commit()
        self._last_was_prefill = step.is_prefill
        if step.is_prefill:
            self._budget.record(step.num_tokens, self._clock() - began)
            self._keep_states()
        for chunk, row in rows:
            if chunk.sequence is not None:
                self._sample_all(chunk.sequence, row, chunk.draft)
        self.beat(self._clock() - began, step.num_tokens)
        if not self.has_work:
            self._kv.check()

    def beat(self, step_s: float, num_tokens: int) -> None:
        """Report the state of the scheduler. A `step_s` of 0 means that no step was run."""
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

    def _plan(self, *, has_answers: bool, may_read: bool) -> Step:
        max_read = self._budget.num_tokens if has_answers else self._max_read
        return plan_step(
            self._backend,
            self._cost,
            self._running,
            self._kv.idle_lengths,
            max_read if may_read else 0,
        )

    def _admit(self) -> None:
        """Move waiting sequences to free slots, as many as there is time to read."""
        while self._kv.num_free:
            sequence = self._waiting.take(
                (one for one in self._running if one.status is Status.PREFILL),
                lambda one: self._cells.admits(one, self._running.keys()),
            )
            if sequence is None:
                return
            room = self._cells.left_by(self._running.keys())
            slot, num_cached = self._kv.acquire(sequence.conversation, sequence.tokens, room)
            slot.forgotten = sequence.forgotten
            self._running[sequence] = slot
            sequence.num_computed, sequence.num_expected = num_cached, 0
            if self._kv.has_prefix(sequence.tokens[: sequence.num_shareable]):
                sequence.num_shareable = 0
            sequence.status = Status.PREFILL
            # A sequence that was set aside has been reported before.
            if not sequence.started_at:
                self._report_start(sequence)

    def _report_start(self, sequence: Sequence) -> None:
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
        """Free the cells that this step needs: set aside the sequences that came last."""
        while self._cells.left_by(self._running.keys()) < 0:
            sequence, slot = self._running.popitem()
            sequence.forgotten = sequence.forgotten or slot.forgotten
            self._kv.set_aside(slot, sequence.tokens[: sequence.num_computed])
            sequence.num_computed, sequence.num_expected = 0, sequence.num_computed
            sequence.status = Status.WAITING
            sequence.num_passed_over = MAX_PASSED_OVER
            self._waiting.add(sequence)
        self._kv.make_room(self._cells.left_by(self._running.keys()))

    def _keep_states(self) -> None:
        """Keep checkpoints, and template prefixes that were computed for the first time."""
        for sequence, slot in self._running.items():
            if sequence.num_computed in sequence.checkpoints:
                self._kv.add_checkpoint(slot, sequence.num_computed)
                sequence.checkpoints.remove(sequence.num_computed)
            number = sequence.num_shareable
            if number and sequence.num_computed == number:
                self._kv.add_prefix(slot, sequence.tokens[:number])
                sequence.num_shareable = 0

    # Tokens

    def _sample_all(self, sequence: Sequence, row: int, draft: list[int]) -> None:
        """Sample a sequence's next token, and further ones as long as the draft was right.

        Each is sampled as if there had been no draft, so drafts change no answer.
        """
        num_right = 0
        for offset in range(len(draft) + 1):
            self._sample(sequence, row + offset)
            if sequence.status is Status.FINISHED:
                return
            if offset == len(draft) or sequence.tokens[-1] != draft[offset]:
                break
            num_right += 1
            # The keys and values of the token are in the slot already.
            sequence.num_computed += 1
            sequence.num_drafted -= 1
        if draft and sequence.lookup is not None:
            sequence.lookup.record(len(draft), num_right)
            self._num_drafted_tokens += len(draft)
            self._num_accepted_tokens += num_right
            self._drop_draft(sequence)

    def _drop_draft(self, sequence: Sequence) -> None:
        """Drop the keys and values of drafted tokens that were wrong."""
        if sequence.num_drafted:
            sequence.num_drafted = 0
            self._backend.truncate(self._running[sequence].index, sequence.num_computed)

    def _sample(self, sequence: Sequence, row: int) -> None:
        """Sample a sequence's next token and send its text."""
        if sequence.status is Status.PREFILL:
            sequence.status = Status.DECODE
            sequence.decoded_at = sequence.decoded_at or self._clock()
        sampler = _sampler_of(sequence)
        try:
            token = sampler.sample(row)
        except InvalidField as error:
            self._leave(sequence)
            self._emit(refusal_event(sequence.request.id, error))
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
        """End a sequence, whatever its status."""
        stream = sequence.stream
        if reason != "cancelled":
            self._send(stream.finish())
        if reason == "stop" and stream.has_calls:
            reason = "tool_calls"
        self._leave(sequence)
        self._emit(sequence.done(reason, self._clock()))

    def _leave(self, sequence: Sequence) -> None:
        """Remove a sequence from wherever it is: the only place that does."""
        if sequence.status is Status.WAITING:
            self._waiting.remove(sequence)
        else:
            self._drop_draft(sequence)
            slot = self._running.pop(sequence)
            self._kv.release(slot, sequence.tokens[: sequence.num_computed])
        _sampler_of(sequence).close()
        sequence.status = Status.FINISHED

    def _send(self, events: list[Progress]) -> None:
        for event in events:
            self._emit(event)


def _sampler_of(sequence: Sequence) -> Sampler:
    sampler = sequence.sampler
    assert sampler is not None, "a sequence was queued without its sampler"  # noqa: S101
    return sampler
