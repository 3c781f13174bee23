"""The loop of a worker: what the daemon wants, a step of the model, what came of it."""

from __future__ import annotations

import queue
import socket
import sys
import threading
import time
from pathlib import Path

from llmd.engine.protocol import Command, Event, Loading, Start, receive_command, send_events
from llmd.worker.cpu.team import leave_core
from llmd.worker.dispatch import Desk, EmbeddingDesk
from llmd.worker.kv.disk import DiskStates, fingerprint_of
from llmd.worker.llama.context import load_backend
from llmd.worker.llama.embedding_context import load_embedder
from llmd.worker.scheduling.grammar_thread import Compiled

OBEY_S = 0.02
"""How long new requests may be read and tokenised before those that generate go on."""

IDLE_S = 2.0
"""Without any work for so long, the states of sessions are put to the disk, one by one."""


class Worker:
    """Feed the desk from the daemon's commands and send its events back."""

    def __init__(self, sock: socket.socket, start: Start) -> None:
        """Load the model. Raise `EngineFailed` or `ModelInvalid`."""
        self._sock = sock
        self._events: list[Event] = []
        self._progress = -1
        self._inbox: queue.SimpleQueue[Command | Compiled | None] = queue.SimpleQueue()
        self._desk: Desk | EmbeddingDesk
        if start.embeds_only:
            embedder = load_embedder(start, self._on_progress)
            info = embedder.info
            self._desk = EmbeddingDesk(embedder, self._events.append, time.monotonic)
        else:
            backend = load_backend(start, self._on_progress)
            info = backend.info
            self._desk = Desk(
                backend,
                self._events.append,
                self._inbox.put,
                max_state_bytes=start.max_state_bytes,
                clock=time.monotonic,
                disk=_disk(start, backend.build),
            )
        send_events(sock, [info])

    def run(self) -> None:
        """Serve until the daemon closes its end. Every decode is made in this thread.

        The OpenMP runtime keeps a team of threads for each thread that calls it, and two teams
        on the same cores halve the speed.
        """
        threading.Thread(target=self._read, name="commands", daemon=True).start()
        while True:
            began = time.monotonic()
            while not self._desk.has_work or (
                not self._inbox.empty() and time.monotonic() - began < OBEY_S
            ):
                command = self._next_command()
                if command is None:
                    self._desk.close()
                    return
                self._desk.obey(command)
                self._flush()
            self._desk.step()
            self._flush()

    def _next_command(self) -> Command | Compiled | None:
        """Wait for a command; keep what is idle on the disk while none comes."""
        while True:
            try:
                return self._inbox.get(timeout=IDLE_S if not self._desk.has_work else None)
            except queue.Empty:
                if not self._desk.save_one():
                    return self._inbox.get()

    def _read(self) -> None:
        leave_core()
        try:
            while (command := receive_command(self._sock)) is not None:
                self._inbox.put(command)
        finally:
            # Whatever ended it: a worker that hears nothing must end too.
            self._inbox.put(None)

    def _flush(self) -> None:
        if self._events:
            send_events(self._sock, self._events)
            self._events.clear()

    def _on_progress(self, done: float, cpu_variant: str) -> None:
        if int(100 * done) > self._progress:
            self._progress = int(100 * done)
            send_events(self._sock, [Loading(done, cpu_variant)])


def _disk(start: Start, build: str) -> DiskStates | None:
    """Return what keeps states on the disk, if the daemon wants that."""
    if not start.cache_dir or not start.max_disk_bytes:
        return None
    kv_layout = f"{start.kv_type} {start.kv_unified} {start.flash_attention}"
    fingerprint = fingerprint_of(Path(start.model_path), build, kv_layout)
    folder = Path(start.cache_dir, "kv")
    return DiskStates(folder, fingerprint, start.max_disk_bytes, _warn)


def _warn(text: str) -> None:
    sys.stderr.write(f"{text}\n")
