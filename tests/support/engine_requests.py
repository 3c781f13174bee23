"""Requests to an engine, and switches of its model in the background."""

from __future__ import annotations

import threading

from llmd.engine.engine import Engine, Request
from llmd.engine.generation import Generation
from llmd.engine.model import Model
from llmd.engine.protocol import Sampling
from tests.support.fake_backend import wait_until
from tests.support.supervisors import make_prompt, read_done


def commit_nothing() -> None:
    """Take the place of storing the choice of a model."""


def ask(engine: Engine, text: str) -> Generation:
    """Submit a request that makes the fake worker do what `text` says."""
    return engine.submit(
        Request(
            owner="ann",
            session="1",
            prompt=make_prompt(text),
            num_turns=0,
            sampling=Sampling(),
            max_tokens=10,
            max_context_tokens=None,
            stop=[],
        )
    )


def serve(engine: Engine, model: Model) -> int:
    """Switch to a model. Return the process ID of its worker."""
    engine.switch(model, commit_nothing)
    return int(read_done(ask(engine, "say pid"))[0])


class Switch:
    """A switch of the model in another thread."""

    def __init__(self, engine: Engine, model: Model) -> None:
        self.error: Exception | None = None
        self.num_commits = 0
        self._thread = threading.Thread(target=self._run, args=[engine, model])
        self._thread.start()

    def _run(self, engine: Engine, model: Model) -> None:
        try:
            engine.switch(model, self._commit)
        except Exception as error:
            self.error = error

    def _commit(self) -> None:
        self.num_commits += 1

    def join(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()


def load_in_background(engine: Engine, model: Model) -> Switch:
    """Begin a switch to a model that never becomes ready."""
    switch = Switch(engine, model)
    wait_until(lambda: engine._loading is not None and engine._loading.progress > 0)
    return switch
