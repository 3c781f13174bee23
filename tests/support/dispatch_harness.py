"""What tests of the desk share: one over the fake model, with all that it told."""

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
from llmd.worker.dispatch import Desk
from llmd.worker.scheduling.grammar_thread import Compiled
from tests.support import fake_embedder as embedding
from tests.support.fake_backend import Clock, FakeBackend, FakeSampler, says

BEGIN = 1
"""The token before a prompt."""

WAIT_S = 20.0


class Bound:
    """A grammar that allows anything."""

    is_complete = False

    def mask(self) -> None:
        """Allow anything."""

    def accept(self, token: int) -> None:
        """Go on by anything."""


class Backend(FakeBackend):
    """Compile while the gate is open: a grammar called `bad` cannot be, `broken` breaks."""

    def __init__(self) -> None:
        super().__init__(next_token=says("yes"))
        self.gate = threading.Event()
        self.gate.set()
        self.compiled_in: list[int] = []
        self.matchers: list[Matcher | None] = []
        self.embedder: embedding.FakeBackend | None = embedding.FakeBackend()

    def tokenize(
        self, parts: list[Part], *, begin: bool = True, owner: str | None = None
    ) -> list[int]:
        return [BEGIN] * begin + super().tokenize(parts, owner=owner)

    def compile(self, request: Submit, *, is_thinking: bool) -> Matcher | None:
        assert self.gate.wait(WAIT_S)
        self.compiled_in.append(threading.get_ident())
        if request.constraint == Grammar("bad"):
            raise InvalidField("it cannot be kept", param="grammar")
        if request.constraint == Grammar("broken"):
            raise RuntimeError("nobody foresaw it")
        return Bound()

    def sampler(self, request: Submit, recent: list[int], matcher: Matcher | None) -> FakeSampler:
        self.matchers.append(matcher)
        return super().sampler(request, recent, matcher)

    def make_embedder(self) -> embedding.FakeBackend:
        if self.embedder is None:
            raise InvalidField("this model makes no vectors")
        return self.embedder


class House:
    """A desk, and all that it told."""

    def __init__(self) -> None:
        self.backend = Backend()
        self.events: list[Event] = []
        self._compiled: queue.SimpleQueue[Compiled] = queue.SimpleQueue()
        self.desk = Desk(
            self.backend,
            self.events.append,
            self._compiled.put,
            max_state_bytes=1 << 20,
            clock=Clock(),
        )

    def obey(self, *commands: Command) -> None:
        for command in commands:
            self.desk.obey(command)

    def take_compiled(self) -> None:
        """Wait for the next that is compiled, and hand it to the desk as the worker does."""
        self.desk.obey(self._compiled.get(timeout=WAIT_S))

    def run(self) -> None:
        while self.desk.has_work:
            self.desk.step()

    def of(self, request_id: int) -> list[Event]:
        """Return what was told of a request."""
        return [event for event in self.events if getattr(event, "id", None) == request_id]

    def text(self, request_id: int) -> str:
        return "".join(event.text for event in self.of(request_id) if isinstance(event, Delta))


def submit(request_id: int, constraint: JsonSchema | Grammar | None = None) -> Submit:
    """Return a request of ann's in session 1, which is answered by `yes`."""
    return Submit(
        id=request_id,
        owner="ann",
        session="1",
        prompt=TextPrompt([Part(text="Is it?:")]),
        sampling=Sampling(),
        max_tokens=20,
        constraint=constraint,
    )
