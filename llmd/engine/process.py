"""Start and stop the worker process."""

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

_NUM_LAST_LINES = 2
"""How many of the last lines of standard error are part of the reason for a worker's end."""

HUGE_PAGES = "glibc.malloc.hugetlb=1"
"""Make malloc ask the kernel for pages of 2 MB for large blocks: weights, KV and buffers.

With fewer pages to look up, a step takes 2 to 5 % less time (measured by `bench/pages.py`).
"""


@dataclass(frozen=True)
class WorkerSettings:
    """The command and the time limits of a worker. Only tests change the defaults."""

    command: tuple[str, ...] = (sys.executable, "-m", "llmd.worker")
    """The command line, to which the descriptor of the worker's socket is appended."""
    poll_s: float = 1.0
    """Interval between two checks whether a silent worker hangs."""
    restart_after_s: float = 0.5
    """Pause between the death of a worker and the start of the next one."""
    kill_after_s: float = 5.0
    """How long a worker may take to end after its socket was closed."""


WORKER_SETTINGS = WorkerSettings()
"""The settings of every worker outside of tests."""


class WorkerProcess:
    """A child process and the socket to it. Its standard error is written to the log."""

    def __init__(self, settings: WorkerSettings = WORKER_SETTINGS) -> None:
        """Start the worker. Raise OSError if the process or its socket cannot be created."""
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
                # llama.cpp also searches the current directory for libraries: / is writable
                # by root alone.
                cwd="/",
                env=_environment(),
            )
            on_failure.pop_all()
        self._last_lines: deque[str] = deque(maxlen=_NUM_LAST_LINES)
        assert self._process.stderr is not None  # noqa: S101 - for the type checker
        self._reader = threading.Thread(
            target=self._read_stderr, args=[self._process.stderr], name="worker-log", daemon=True
        )
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process ID."""
        return self._process.pid

    @property
    def died_of_illegal_instruction(self) -> bool:
        """Whether the processor could not run the worker's code; known after `close`."""
        return self._process.returncode == -signal.SIGILL

    def kill(self) -> None:
        """Kill the process. Idempotent."""
        self._process.kill()

    def hang_up(self) -> None:
        """Ask the process to end, which it does after the current step. Idempotent."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> str:
        """Close the socket, wait for the process to end, and return a description of its end."""
        self.sock.close()
        try:
            code = self._process.wait(self._kill_after_s)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.wait()
        self._reader.join(self._kill_after_s)
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        return f"{how}; last output: {' / '.join(self._last_lines)}" if self._last_lines else how

    def _read_stderr(self, stream: IO[bytes]) -> None:
        with stream:
            for raw in stream:
                line = raw.decode("utf-8", "replace").rstrip()
                if line:
                    log.warning("worker: %s", line)
                # The markers under a line of a traceback say nothing by themselves.
                if line.strip(" ^~"):
                    self._last_lines.append(line.strip())


def _environment() -> dict[str, str]:
    """Return the environment of a worker: the daemon's, and variables of its own."""
    given = os.environ.get("GLIBC_TUNABLES", "")
    # If a tunable occurs twice, glibc takes the last one: the admin's setting wins.
    tunables = ":".join(filter(None, [HUGE_PAGES, given]))
    own = {"PYTHONSAFEPATH": "1", "GGML_NO_BACKTRACE": "1", "GLIBC_TUNABLES": tunables}
    return {**os.environ, **own}
