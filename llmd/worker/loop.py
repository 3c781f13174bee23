"""The main loop of a worker: receive commands, run a step of the model, send the events."""

from __future__ import annotations

import queue
import socket
import sys
import threading
import time
from pathlib import Path

from llmd.engine.protocol import Command, Event, Loading, Start, receive_command, send_events
from llmd.worker.cpu.team import leave_core
from llmd.worker.dispatch import Dispatcher, EmbeddingDispatcher
from llmd.worker.kv.disk import DiskStates, fingerprint_of
from llmd.worker.llama.context import LlamaBackend, load_backend
from llmd.worker.llama.embedding_context import load_embedder
from llmd.worker.llama.timing import remembered_steps
from llmd.worker.scheduling.grammar_thread import Compiled
from llmd.worker.text_thread import Tokenized

COMMANDS_S = 0.02
"""How long commands are handled, and new prompts tokenised, before running answers go on."""

IDLE_S = 2.0
"""KV states are written to the disk while there is no work, one each time this has passed."""


class Worker:
    """Pass the daemon's commands to the dispatcher, and send its events back."""

    def __init__(self, sock: socket.socket, start: Start) -> None:
        """Load the model. Raise `EngineFailed` or `ModelInvalid`."""
        self._sock = sock
        self._events: list[Event] = []
        self._progress = -1
        self._inbox: queue.SimpleQueue[Command | Compiled | Tokenized | None] = queue.SimpleQueue()
        self._dispatcher: Dispatcher | EmbeddingDispatcher
        if start.embeds_only:
            embedder = load_embedder(start, self._on_progress)
            info = embedder.info
            self._dispatcher = EmbeddingDispatcher(embedder, self._events.append, time.monotonic)
        else:
            backend = load_backend(start, self._on_progress)
            info = backend.info
            if start.cache_dir:
                file = Path(start.cache_dir, "steps", f"{_steps_name(start, backend)}.json")
                backend.measured_steps_s = remembered_steps(file, backend.measured_steps_s)
            self._dispatcher = Dispatcher(
                backend,
                self._events.append,
                self._inbox.put,
                max_state_bytes=start.max_state_bytes,
                clock=time.monotonic,
                disk=_disk(start, backend),
            )
        send_events(sock, [info])

    def run(self) -> None:
        """Serve until the daemon closes its end of the socket. All decodes are in this thread.

        OpenMP keeps a team of threads for each thread that calls it, and two teams on the same
        cores halve the speed.
        """
        threading.Thread(target=self._read, name="commands", daemon=True).start()
        while True:
            began = time.monotonic()
            while not self._dispatcher.has_work or (
                not self._inbox.empty() and time.monotonic() - began < COMMANDS_S
            ):
                was_idle = not self._dispatcher.has_work
                command = self._next_command()
                if was_idle:
                    began = time.monotonic()
                if command is None:
                    self._dispatcher.close()
                    return
                self._dispatcher.handle(command)
                self._flush()
            self._dispatcher.step()
            self._flush()

    def _next_command(self) -> Command | Compiled | Tokenized | None:
        """Wait for a command, and write idle KV states to the disk while none comes."""
        while True:
            try:
                return self._inbox.get(timeout=IDLE_S if not self._dispatcher.has_work else None)
            except queue.Empty:
                if not self._dispatcher.save_one():
                    return self._inbox.get()

    def _read(self) -> None:
        leave_core()
        try:
            while (command := receive_command(self._sock)) is not None:
                self._inbox.put(command)
        finally:
            # Whatever ended it, a worker that receives no commands must end as well.
            self._inbox.put(None)

    def _flush(self) -> None:
        if self._events:
            send_events(self._sock, self._events)
            self._events.clear()

    def _on_progress(self, done: float, cpu_variant: str) -> None:
        if int(100 * done) > self._progress:
            self._progress = int(100 * done)
            send_events(self._sock, [Loading(done, cpu_variant)])


def _steps_name(start: Start, backend: LlamaBackend) -> str:
    """Return a name for the times of this model with this CPU code and these threads."""
    info = backend.info
    return _fingerprint(
        start,
        backend,
        info.cpu_variant,
        info.num_threads,
        info.num_threads_batch,
        start.max_batch_tokens,
    )


def _fingerprint(start: Start, backend: LlamaBackend, *more: object) -> str:
    """Return a fingerprint of the model, the build of llama.cpp and the layout of KV memory."""
    kv_layout = f"{start.kv_type} {start.kv_unified} {start.flash_attention}"
    return fingerprint_of(Path(start.model_path), backend.build, kv_layout, *map(str, more))


def _disk(start: Start, backend: LlamaBackend) -> DiskStates | None:
    """Return the store of KV states on the disk, if the daemon wants one."""
    if not start.cache_dir or not start.max_disk_bytes:
        return None
    folder = Path(start.cache_dir, "kv")
    return DiskStates(folder, _fingerprint(start, backend), start.max_disk_bytes, _warn)


def _warn(text: str) -> None:
    sys.stderr.write(f"{text}\n")
