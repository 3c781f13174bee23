"""What tests of the daemon's side of the engine share: models and requests of the fake worker."""

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
"""Far beyond what anything here takes: who waits so long has failed."""

FAKE_WORKER = WorkerSettings(
    command=(sys.executable, str(Path(__file__).with_name("fake_worker.py"))),
    poll_s=0.01,
    restart_after_s=0.01,
    kill_after_s=LIMIT_S,
)

SETTINGS = config.Engine(load_timeout_s=LIMIT_S, stall_s=LIMIT_S)


def make_model(folder: Path, name: str = "a.gguf", how: str = "") -> Model:
    """Write a model that loads as `how` says."""
    path = folder / name
    path.write_text(how)
    return Model(name, str(path))


class Supervise:
    """Make supervisors of models that load as told, and stop them all in the end."""

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
            # One that hangs would have its time to end by itself.
            process = supervisor._process
            if process is not None:
                process.kill()
            supervisor.stop()


def make_prompt(text: str) -> Prompt:
    """Tell the fake worker what to do: a verb, and what with."""
    return TextPrompt([Part(text=text)])


def submit(supervisor: Supervisor, text: str) -> Generation:
    """Have a supervisor's worker do what the text says."""
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
    """Read to the first text."""
    while True:
        event = generation.next(LIMIT_S)
        if isinstance(event, Delta):
            return event.text
        assert isinstance(event, Started)


def read_done(generation: Generation) -> tuple[str, str]:
    """Read to the end: (text, finish_reason)."""
    text = ""
    while True:
        event = generation.next(LIMIT_S)
        assert event is not None, "nothing came"
        if isinstance(event, Delta):
            text += event.text
        if isinstance(event, Done):
            return text, event.finish_reason


def is_alive(pid: int) -> bool:
    """Tell whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
