"""Start and end the worker process."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from dataclasses import dataclass
from typing import IO

log = logging.getLogger(__name__)

_NUM_LAST_WORDS = 2

HUGE_PAGES = "glibc.malloc.hugetlb=1"
"""Let malloc ask the kernel for pages of 2 MB for what is large: weights, KV and buffers.

With fewer pages to look up a step takes 2 to 5 % less time (`bench/pages.py`).
"""


@dataclass(frozen=True)
class WorkerSettings:
    """What is run as the worker, and how soon is done what must be. Others in tests alone."""

    command: tuple[str, ...] = (sys.executable, "-m", "llmd.worker")
    """The descriptor of the worker's socket is added as the last argument."""
    poll_s: float = 1.0
    """How often a silent worker is looked at."""
    restart_after_s: float = 0.5
    kill_after_s: float = 5.0
    """How long a worker has for its end after its socket was closed."""


WORKER_SETTINGS = WorkerSettings()


class WorkerProcess:
    """One child process with the socket to it. What it writes on standard error is logged."""

    def __init__(self, settings: WorkerSettings = WORKER_SETTINGS) -> None:
        """Start the worker. Raise OSError when there is no process or descriptor to be had."""
        self._kill_after_s = settings.kill_after_s
        self.sock, child_end = socket.socketpair()
        with child_end, contextlib.ExitStack() as on_failure:
            on_failure.callback(self.sock.close)
            self._process = subprocess.Popen(
                [*settings.command, str(child_end.fileno())],
                pass_fds=[child_end.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                # llama.cpp looks for libraries in the current directory too: only root's then.
                cwd="/",
                env=_environment(),
            )
            on_failure.pop_all()
        self._last_words: deque[str] = deque(maxlen=_NUM_LAST_WORDS)
        assert self._process.stderr is not None  # noqa: S101 - for the type checker
        self._reader = threading.Thread(
            target=self._read_stderr, args=[self._process.stderr], name="worker-log", daemon=True
        )
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def died_of_illegal_instruction(self) -> bool:
        """Whether the processor could not run its code; known once it is closed."""
        return self._process.returncode == -signal.SIGILL

    def kill(self) -> None:
        """End the process at once. Idempotent."""
        self._process.kill()

    def hang_up(self) -> None:
        """Tell the process to end: it does so after its present step. Idempotent."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> str:
        """Close the socket, wait for the process to end, and return how it ended, in words."""
        self.sock.close()
        try:
            code = self._process.wait(self._kill_after_s)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.wait()
        self._reader.join(self._kill_after_s)
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        return f"{how}; its last words: {' / '.join(self._last_words)}" if self._last_words else how

    def _read_stderr(self, stream: IO[bytes]) -> None:
        with stream:
            for raw in stream:
                line = raw.decode("utf-8", "replace").rstrip()
                if line:
                    log.warning("worker: %s", line)
                # The marks under a line of a traceback tell nothing by themselves.
                if line.strip(" ^~"):
                    self._last_words.append(line.strip())


def _environment() -> dict[str, str]:
    """Return the daemon's environment with what a worker needs besides."""
    given = os.environ.get("GLIBC_TUNABLES", "")
    # Of one that stands twice the last counts: what the admin has set.
    tunables = ":".join(filter(None, [HUGE_PAGES, given]))
    own = {"PYTHONSAFEPATH": "1", "GGML_NO_BACKTRACE": "1", "GLIBC_TUNABLES": tunables}
    return {**os.environ, **own}
