"""Run a worker on an emulated processor; print its CPU code and a token, or the error.

emulated.py CPU MODEL
"""

from __future__ import annotations

import sys

from llmd import config
from llmd.engine.model import Model
from llmd.engine.process import WorkerSettings
from llmd.engine.protocol import Delta, Done, Part, Sampling, Start, Submit, TextPrompt
from llmd.engine.supervisor import Supervisor
from llmd.errors import LlmdError


def main(cpu: str, path: str) -> None:
    """Load the model at `path` and generate one token."""
    emulator = ("/opt/emulator", "-cpu", cpu, sys.executable, "-I", "-m", "llmd.worker")
    start = Start(
        model_path=path,
        library_dir="/usr/lib/llmd/engine",
        num_context_tokens=128,
        max_sequences=1,
        max_batch_tokens=16,
        num_threads=2,
        num_threads_batch=2,
        kv_type="f16",
        max_state_bytes=0,
    )
    settings = config.Engine(stall_s=3600)
    supervisor = Supervisor(Model("m", path), start, settings, WorkerSettings(command=emulator))
    try:
        supervisor.wait_ready()
    except LlmdError as error:
        sys.stdout.write(f"refused: {error.message}\n")
        return
    assert supervisor.info
    sys.stdout.write(f"CPU code {supervisor.info.cpu_variant}\n")
    generation = supervisor.submit(
        Submit(
            id=1,
            owner="",
            prompt=TextPrompt([Part(text="The capital of France is")]),
            sampling=Sampling(temperature=0),
            max_tokens=1,
        )
    )
    while not isinstance(event := generation.next(3600), Done):
        if isinstance(event, Delta):
            sys.stdout.write(f"token {event.text}\n")
    supervisor.stop()


main(*sys.argv[1:])
