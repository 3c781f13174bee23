"""Random requests, cancels and forgets sent to one scheduler, checked after each step."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from llmd.engine.protocol import (
    Delta,
    Done,
    Event,
    Part,
    Sampling,
    Started,
    Submit,
    TextPrompt,
)
from llmd.errors import PromptTooLong
from llmd.worker.scheduling import cells
from llmd.worker.scheduling.scheduler import Scheduler
from tests.support.fake_backend import (
    END,
    GROUPED_STEPS_S,
    Clock,
    FakeBackend,
    NextToken,
    babble,
    num_shared,
    parrot,
)

CONTEXT = 200

_owners = st.sampled_from(["ann", "bob"])
_sessions = st.sampled_from(["1", "2"])
# With long pieces, prompts share prefixes that are long enough to be saved, and some prompts do
# not fit the context.
_prompts = st.lists(st.sampled_from(["x" * 40, "y" * 40, "z"]), min_size=1, max_size=6).map("".join)
_stops = st.sampled_from([[], ["e"], ["ab", "q"], ["xyz", "p", "no"]])


def _expected_answer(
    request: Submit, tokens: list[int], next_token: NextToken
) -> tuple[str, str, list[int]]:
    """Compute an answer without scheduler, slots or batches; return (text, reason, all tokens)."""
    tokens, answer = list(tokens), ""
    while True:
        token = next_token(tokens)
        if token == END:
            return answer, "stop", tokens
        tokens.append(token)
        answer += chr(token)
        # All stop strings end in different letters, so at most one is complete now.
        for stop in request.stop:
            if answer.endswith(stop):
                return answer.removesuffix(stop), "stop", tokens
        if len(answer) >= request.max_tokens or len(tokens) >= CONTEXT:
            return answer, "length", tokens


class RequestRecord:
    """A request, the answer that it should get, and the events received for it."""

    def __init__(self, request: Submit, tokens: list[int], next_token: NextToken) -> None:
        self.request = request
        self.tokens = tokens
        self.text, self.reason, self.all_tokens = _expected_answer(request, tokens, next_token)
        self.received = ""
        self.started = False
        self.done: Done | None = None
        self.cancelled = False
        self.forgotten = False


class SchedulerMachine(RuleBasedStateMachine):
    """A scheduler whose events are compared with the expected answers."""

    @initialize(
        max_sequences=st.sampled_from([1, 2, 3, 6, 9]),
        max_batch_tokens=st.sampled_from([1, 7, 32]),
        max_state_bytes=st.sampled_from([0, 700, 1 << 20]),
        recurrent=st.booleans(),
        window=st.sampled_from([0, 0, 16, 90]),
        next_token=st.sampled_from([babble, parrot]),
        max_draft_tokens=st.sampled_from([0, 1, 3, 8]),
        loads=st.booleans(),
        num_cells=st.sampled_from([0, CONTEXT, CONTEXT + 50, 2 * CONTEXT]),
        headroom=st.sampled_from([0, cells.HEADROOM]),
        pads_to_groups=st.booleans(),
    )
    def begin(
        self,
        *,
        max_sequences: int,
        max_batch_tokens: int,
        max_state_bytes: int,
        recurrent: bool,
        window: int,
        next_token: NextToken,
        max_draft_tokens: int,
        loads: bool,
        num_cells: int,
        headroom: int,
        pads_to_groups: bool,
    ) -> None:
        # With less headroom, more sequences are set aside.
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(cells, "HEADROOM", headroom)
        # Padding needs slots that can be truncated and that have cells of their own.
        can_pad = pads_to_groups and not recurrent and not num_cells
        self.backend = FakeBackend(
            num_context_tokens=CONTEXT,
            max_sequences=max_sequences,
            max_batch_tokens=max(max_batch_tokens, max_sequences),
            recurrent=recurrent,
            window=window,
            next_token=next_token,
            max_draft_tokens=max_draft_tokens,
            num_cells=num_cells,
            can_pad=can_pad,
            measured_steps_s=GROUPED_STEPS_S if can_pad else None,
        )
        self.backend.loads = loads
        self.scheduler = Scheduler(
            self.backend, self.check_event, max_state_bytes=max_state_bytes, clock=Clock()
        )
        self.records: dict[int, RequestRecord] = {}
        self.computed: dict[tuple[str, str], list[list[int]]] = {}
        """For each session, the tokens that may still be in a slot or in a saved state."""

    @rule(
        owner=_owners,
        session=_sessions,
        prompt=_prompts,
        max_tokens=st.integers(1, 40),
        stop=_stops,
    )
    def submit(
        self, owner: str, session: str, prompt: str, max_tokens: int, stop: list[str]
    ) -> None:
        request = Submit(
            id=len(self.records) + 1,
            owner=owner,
            session=session,
            prompt=TextPrompt([Part(text=prompt)]),
            sampling=Sampling(),
            max_tokens=max_tokens,
            stop=stop,
        )
        tokens = list(prompt.encode())
        try:
            self.scheduler.submit(request)
        except PromptTooLong:
            assert len(tokens) >= CONTEXT
            return
        assert len(tokens) < CONTEXT
        self.records[request.id] = RequestRecord(request, tokens, self.backend.next_token)

    @rule(data=st.data())
    def continue_conversation(self, data: st.DataObject) -> None:
        """Submit the next turn of a conversation whose last answer has ended."""
        ended = [record for record in self.records.values() if record.done]
        if ended:
            record = data.draw(st.sampled_from(ended))
            prompt = bytes(record.tokens).decode() + record.received + "z"
            self.submit(record.request.owner, record.request.session, prompt, 10, [])

    @rule(times=st.integers(1, 12))
    def step(self, times: int) -> None:
        for _ in range(times):
            self.scheduler.step()

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Cancel any request, even one that has ended."""
        if self.records:
            record = self.records[data.draw(st.sampled_from(sorted(self.records)))]
            record.cancelled = record.cancelled or not record.done
            self.scheduler.cancel(record.request.id)
            assert record.done

    @rule(owner=_owners, session=_sessions | st.none())
    def forget(self, owner: str, session: str | None) -> None:
        self.scheduler.forget(owner, session)
        for key in list(self.computed):
            if key[0] == owner and session in (None, key[1]):
                del self.computed[key]
        for record in self.records.values():
            if record.request.owner == owner and session in (None, record.request.session):
                record.forgotten = True

    def check_event(self, event: Event) -> None:
        """Check that an event is as expected."""
        if isinstance(event, Started):
            record = self.records[event.id]
            assert not record.started and not record.done
            record.started = True
            owner, session = record.request.owner, record.request.session
            of_owner = [
                tokens
                for (other, _), lists in self.computed.items()
                if other == owner
                for tokens in lists
            ]
            assert event.num_cached_tokens <= num_shared(record.tokens[:-1], of_owner)
            assert event.num_prompt_tokens == len(record.tokens)
            if not record.forgotten:
                self.computed.setdefault((owner, session), []).append(record.all_tokens)
        elif isinstance(event, Delta):
            record = self.records[event.id]
            assert record.started and not record.done
            record.received += event.text
            assert record.text.startswith(record.received)
        elif isinstance(event, Done):
            record = self.records[event.id]
            assert not record.done
            record.done = event
            if record.cancelled:
                assert event.finish_reason == "cancelled"
            else:
                assert (record.received, event.finish_reason) == (record.text, record.reason)

    @invariant()
    def every_slot_has_one_user_or_none(self) -> None:
        """No slot is lost or shared, and each holds the tokens that it is said to hold."""
        if not hasattr(self, "scheduler"):
            return
        slots = list(self.scheduler._kv._slots)
        running = list(self.scheduler._running.values())
        assert sorted(slot.index for slot in slots) == list(range(self.backend.max_sequences))
        assert len({slot.index for slot in running}) == len(running)
        assert {slot.index for slot in slots if slot.busy} == {slot.index for slot in running}
        for slot in slots:
            if not slot.busy:
                assert self.backend.resident[slot.index] == slot.tokens
        for sequence, slot in self.scheduler._running.items():
            resident = self.backend.resident[slot.index]
            assert resident == sequence.tokens[: sequence.num_computed]
        num_live = sum(record.done is None for record in self.records.values())
        assert self.backend.num_open_samplers == num_live

    def teardown(self) -> None:
        """Run to the end, and check that each request has had one `Done` and every slot is free."""
        if not hasattr(self, "scheduler"):
            return
        try:
            self.run_to_the_end()
        finally:
            self.patch.undo()

    def run_to_the_end(self) -> None:
        num_steps = 0
        while self.scheduler.has_work:
            self.scheduler.step()
            num_steps += 1
            assert num_steps <= CONTEXT * len(self.records), "the requests do not come to an end"
        assert all(record.done for record in self.records.values())
        assert self.scheduler._kv.num_free == self.backend.max_sequences
        self.every_slot_has_one_user_or_none()


SchedulerMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None
)


# Each request ends once, with the answer that it would get alone, and no slot is lost.
TestScheduler = SchedulerMachine.TestCase
