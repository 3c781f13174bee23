"""A harness that runs a dispatcher over a fake backend and collects its events."""

from __future__ import annotations

import queue
import threading

from llmd.engine.protocol import (
    Command,
    Delta,
    Event,
    Grammar,
    JsonSchema,
    Part,
    Sampling,
    Submit,
    TextPrompt,
)
from llmd.errors import InvalidField
from llmd.worker.backend import Matcher
from llmd.worker.dispatch import Dispatcher
from llmd.worker.scheduling.grammar_thread import Compiled
from llmd.worker.text_thread import Tokenized
from tests.support import fake_embedder
from tests.support.fake_backend import Clock, FakeBackend, FakeSampler, says

BEGIN = 1
"""The first token of every prompt."""

WAIT_S = 20.0
"""How long to wait for the thread that compiles grammars."""


class AnyMatcher:
    """A matcher of a grammar that allows everything."""

    is_complete = False

    def mask(self) -> None:
        """Allow every token."""

    def accept(self, token: int) -> None:
        """Accept every token."""


class Backend(FakeBackend):
    """A backend that compiles grammars only while its gate is open.

    The grammar `bad` cannot be compiled, and `broken` raises an unexpected error.
    """

    def __init__(self) -> None:
        super().__init__(next_token=says("yes"))
        self.gate = threading.Event()
        self.gate.set()
        self.compiled_in: list[int] = []
        self.matchers: list[Matcher | None] = []
        self.embedder: fake_embedder.FakeBackend | None = fake_embedder.FakeBackend()

    def tokenize(
        self, parts: list[Part], *, begin: bool = True, owner: str | None = None
    ) -> list[int]:
        return [BEGIN] * begin + super().tokenize(parts, owner=owner)

    def compile(self, request: Submit, *, is_thinking: bool) -> Matcher | None:
        assert self.gate.wait(WAIT_S)
        self.compiled_in.append(threading.get_ident())
        if request.constraint == Grammar("bad"):
            raise InvalidField("the grammar is bad", param="grammar")
        if request.constraint == Grammar("broken"):
            raise RuntimeError("unexpected")
        return AnyMatcher()

    def sampler(self, request: Submit, recent: list[int], matcher: Matcher | None) -> FakeSampler:
        self.matchers.append(matcher)
        return super().sampler(request, recent, matcher)

    def make_embedder(self) -> fake_embedder.FakeBackend:
        if self.embedder is None:
            raise InvalidField("this model makes no vectors")
        return self.embedder


class Harness:
    """A dispatcher over a fake backend, and the events that it emitted."""

    def __init__(self) -> None:
        self.backend = Backend()
        self.events: list[Event] = []
        self._compiled: queue.SimpleQueue[Compiled | Tokenized] = queue.SimpleQueue()
        self.dispatcher = Dispatcher(
            self.backend,
            self.events.append,
            self._compiled.put,
            max_state_bytes=1 << 20,
            clock=Clock(),
        )

    def handle(self, *commands: Command) -> None:
        for command in commands:
            self.dispatcher.handle(command)

    def take_compiled(self) -> None:
        """Wait for the next grammar or long text, and pass it on as the worker does."""
        self.dispatcher.handle(self._compiled.get(timeout=WAIT_S))

    def run(self) -> None:
        while self.dispatcher.has_work:
            self.dispatcher.step()

    def events_of(self, request_id: int) -> list[Event]:
        """Return the events of a request."""
        return [event for event in self.events if getattr(event, "id", None) == request_id]

    def text(self, request_id: int) -> str:
        return "".join(
            event.text for event in self.events_of(request_id) if isinstance(event, Delta)
        )


def submit(request_id: int, constraint: JsonSchema | Grammar | None = None) -> Submit:
    """Return a request of ann's in session 1, which the model answers with `yes`."""
    return Submit(
        id=request_id,
        owner="ann",
        session="1",
        prompt=TextPrompt([Part(text="Is it?:")]),
        sampling=Sampling(),
        max_tokens=20,
        constraint=constraint,
    )
