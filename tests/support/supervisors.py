"""Supervisors of the fake worker, and requests to it."""

from __future__ import annotations

import dataclasses
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path

from llmd import config
from llmd.engine.generation import Generation
from llmd.engine.model import Model
from llmd.engine.process import WorkerSettings
from llmd.engine.protocol import (
    Delta,
    Done,
    Part,
    Prompt,
    Sampling,
    Start,
    Started,
    Submit,
    TextPrompt,
)
from llmd.engine.supervisor import Supervisor

_ids = itertools.count(1)

LIMIT_S = 20.0
"""A time limit that is never reached unless a test fails."""

FAKE_WORKER = WorkerSettings(
    command=(sys.executable, str(Path(__file__).with_name("fake_worker.py"))),
    poll_s=0.01,
    restart_after_s=0.01,
    kill_after_s=LIMIT_S,
)

SETTINGS = config.Engine(load_timeout_s=LIMIT_S, stall_s=LIMIT_S)


def make_model(folder: Path, name: str = "a.gguf", how: str = "") -> Model:
    """Write a model file that makes the fake worker load as `how` says."""
    path = folder / name
    path.write_text(how)
    return Model(name, str(path))


class Supervise:
    """Make supervisors of the fake worker, and stop all of them in the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: list[Supervisor] = []

    def __call__(
        self,
        how: str = "",
        *,
        settings: config.Engine = SETTINGS,
        worker_settings: WorkerSettings = FAKE_WORKER,
        check: Callable[[], object] = lambda: None,
    ) -> Supervisor:
        model = dataclasses.replace(make_model(self._folder, how=how), check=check)
        start = Start(
            model_path=model.path,
            library_dir="",
            num_context_tokens=512,
            max_sequences=4,
            max_batch_tokens=64,
            num_threads=0,
            num_threads_batch=0,
            kv_type="f16",
            max_state_bytes=0,
        )
        self._made.append(Supervisor(model, start, settings, worker_settings))
        return self._made[-1]

    def stop(self) -> None:
        for supervisor in self._made:
            # Do not wait for a worker that hangs.
            process = supervisor._process
            if process is not None:
                process.kill()
            supervisor.stop()


def make_prompt(text: str) -> Prompt:
    """Return a prompt that tells the fake worker what to do: a verb and its object."""
    return TextPrompt([Part(text=text)])


def submit(supervisor: Supervisor, text: str) -> Generation:
    """Submit a request that makes the fake worker do what `text` says."""
    return supervisor.submit(
        Submit(
            id=next(_ids),
            owner="ann",
            prompt=make_prompt(text),
            sampling=Sampling(),
            max_tokens=10,
        )
    )


def read_delta(generation: Generation) -> str:
    """Read events up to the first text, and return it."""
    while True:
        event = generation.next(LIMIT_S)
        if isinstance(event, Delta):
            return event.text
        assert isinstance(event, Started)


def read_done(generation: Generation) -> tuple[str, str]:
    """Read all events. Return the text and the finish reason."""
    text = ""
    while True:
        event = generation.next(LIMIT_S)
        assert event is not None, "nothing came"
        if isinstance(event, Delta):
            text += event.text
        if isinstance(event, Done):
            return text, event.finish_reason


def is_alive(pid: int) -> bool:
    """Return whether a process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
