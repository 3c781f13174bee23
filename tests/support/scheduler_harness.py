"""A harness that runs a scheduler over the fake backend and collects its events."""

from __future__ import annotations

import itertools

from llmd.engine.protocol import (
    Beat,
    Delta,
    Done,
    Event,
    Part,
    Sampling,
    Started,
    Submit,
    TextPrompt,
)
from llmd.worker.scheduling.scheduler import Scheduler
from tests.support.fake_backend import GROUPED_STEPS_S, Clock, FakeBackend, NextToken, says

LONG_ANSWER = "abcdefghijklmnopqrstuvwxyz" * 4


class Harness:
    """A scheduler over a fake backend, and the events that it emitted."""

    def __init__(
        self,
        *,
        next_token: NextToken | None = None,
        num_context_tokens: int = 256,
        max_sequences: int = 4,
        max_batch_tokens: int = 32,
        max_draft_tokens: int = 0,
        num_cells: int = 0,
        pads_to_groups: bool = False,
    ) -> None:
        self.backend = FakeBackend(
            next_token=next_token or says(LONG_ANSWER),
            num_context_tokens=num_context_tokens,
            max_sequences=max_sequences,
            max_batch_tokens=max_batch_tokens,
            max_draft_tokens=max_draft_tokens,
            num_cells=num_cells,
            can_pad=pads_to_groups,
            measured_steps_s=GROUPED_STEPS_S if pads_to_groups else None,
        )
        self.events: list[Event] = []
        self.clock = Clock()
        self.scheduler = Scheduler(
            self.backend, self.events.append, max_state_bytes=1 << 20, clock=self.clock
        )
        self._ids = itertools.count(1)

    def submit(
        self,
        prompt: str,
        *,
        owner: str = "ann",
        session: str = "1",
        max_tokens: int = 1000,
        stop: list[str] | None = None,
        max_context_tokens: int | None = None,
    ) -> int:
        """Submit a prompt and return the request's id.

        By default, a prompt that ends in a colon is answered with `LONG_ANSWER`.
        """
        request_id = next(self._ids)
        self.scheduler.submit(
            Submit(
                id=request_id,
                owner=owner,
                session=session,
                prompt=TextPrompt([Part(text=prompt)]),
                sampling=Sampling(),
                max_tokens=max_tokens,
                stop=stop or [],
                max_context_tokens=max_context_tokens,
            )
        )
        return request_id

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.scheduler.step()

    def run(self) -> None:
        while self.scheduler.has_work:
            self.step()

    def text(self, request_id: int) -> str:
        return "".join(
            event.text
            for event in self.events
            if isinstance(event, Delta) and event.id == request_id
        )

    def started(self, request_id: int) -> Started:
        (event,) = (e for e in self.events if isinstance(e, Started) and e.id == request_id)
        return event

    def done(self, request_id: int) -> Done | None:
        found = [e for e in self.events if isinstance(e, Done) and e.id == request_id]
        assert len(found) <= 1
        return found[0] if found else None

    def reason(self, request_id: int) -> str | None:
        done = self.done(request_id)
        return done.finish_reason if done else None

    def beat(self) -> Beat:
        return [event for event in self.events if isinstance(event, Beat)][-1]
