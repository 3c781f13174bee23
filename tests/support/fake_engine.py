"""An engine without a worker, which answers requests by a script."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from llmd import config
from llmd.engine.engine import Engine, EngineStatus, Request
from llmd.engine.generation import Generation, GenerationEvent
from llmd.engine.model import Model
from llmd.engine.protocol import (
    Delta,
    Done,
    FinishReason,
    KeptStates,
    ListStates,
    ModelInfo,
    Query,
    Refused,
    Started,
)
from llmd.errors import EngineDied, EngineFailed, LlmdError

Event = GenerationEvent | Refused | EngineDied
Script = Callable[[Request], list[Event]]
"""A function that returns the events of a request, which are available at once."""

Reply = Callable[[Query], list[Event]]
"""A function that returns the events of a query, which are available at once."""

_ids = itertools.count(1)

INFO = ModelInfo(
    architecture="llama",
    num_parameters=1_000_000,
    num_context_tokens=4096,
    max_sequences=8,
    num_threads=2,
    num_threads_batch=2,
    cpu_variant="x64",
    has_chat_template=True,
)


def done(reason: FinishReason = "stop", *, num_tokens: int = 2) -> Done:
    """Return the event at the end of an answer."""
    return Done(
        id=0,
        finish_reason=reason,
        num_completion_tokens=num_tokens,
        queue_ms=1.04,
        prefill_ms=20.0,
        decode_ms=30.0,
    )


def begins(*texts: str, then: list[Event] | None = None) -> Script:
    """Return a script that accepts the prompt and sends `texts` and then the events `then`."""

    def script(request: Request) -> list[Event]:
        started = Started(
            id=0, num_prompt_tokens=11, num_cached_tokens=4, num_turns=request.num_turns
        )
        return [started, *(Delta(0, text) for text in texts), *(then or [])]

    return script


def says(*texts: str, reason: FinishReason = "stop") -> Script:
    """Return a script that answers with `texts`, each of one token."""
    return begins(*texts, then=[done(reason, num_tokens=len(texts))])


def silent(request: Request | Query) -> list[Event]:
    """Send no event for a request."""
    return []


class FakeEngine(Engine):
    """An engine that records its calls and answers by a script."""

    def __init__(self, model: str | None = "tiny.gguf") -> None:
        super().__init__(config.Engine(), config.Cache())
        self.name = model
        self.script: Script = says("Hello", " you")
        self.reply: Reply = silent
        self.requests: list[Request] = []
        self.queries: list[Query] = []
        self.generations: list[Generation] = []
        self.cancelled: list[int] = []
        self.forgotten: list[tuple[str, str | None]] = []
        self.started_with: list[Model] = []
        self.switched_to: list[Model] = []
        self.reason = ""
        self.not_ready: LlmdError | None = None
        self.submit_error: Exception | None = None
        self.switch_error: LlmdError | None = None
        self.on_cancel: list[Event] = [done("cancelled", num_tokens=1)]

    @property
    def model(self) -> str | None:
        return self.name

    def start(self, model: Model) -> None:
        self.started_with.append(model)

    def start_without(self, reason: str) -> None:
        self.reason = reason
        self.not_ready = EngineFailed(reason, retry_after_s=30)

    def switch(self, model: Model, commit: Callable[[], None]) -> None:
        if self.switch_error is not None:
            raise self.switch_error
        commit()
        self.switched_to.append(model)
        self.name = model.name

    def check_ready(self) -> None:
        if self.not_ready is not None:
            raise self.not_ready

    def submit(self, request: Request) -> Generation:
        if self.submit_error is not None:
            raise self.submit_error
        self.requests.append(request)
        return self._begin(self.script(request))

    def ask(self, query: Query) -> Generation:
        if self.submit_error is not None:
            raise self.submit_error
        self.queries.append(query)
        if isinstance(query, ListStates):
            return self._begin([KeptStates(0, [])])
        return self._begin(self.reply(query))

    def forget(self, owner: str, session: str | None = None) -> None:
        self.forgotten.append((owner, session))

    def status(self) -> EngineStatus:
        return EngineStatus(
            state="ready" if self.not_ready is None else "failed",
            reason=self.reason,
            model=self.name,
            info=INFO if self.name else None,
            progress=1.0,
            num_restarts=0,
            num_running=1,
            num_waiting=0,
            num_prompt_tokens=11,
            num_cached_tokens=4,
            num_completion_tokens=2,
            num_drafted_tokens=0,
            num_accepted_tokens=0,
            tokens_per_s=12.34,
        )

    def close(self) -> None:
        self.name = None

    def _begin(self, events: list[Event]) -> Generation:
        generation = Generation(next(_ids), self.name or "", self._on_cancel)
        self.generations.append(generation)
        for event in events:
            generation.put(event)
        return generation

    def _on_cancel(self, request_id: int) -> None:
        self.cancelled.append(request_id)
        for generation in self.generations:
            if generation.id == request_id:
                for event in self.on_cancel:
                    generation.put(event)
