"""Bind the computing threads to cores, and reduce their number while other processes are busy.

These threads wait for each other hundreds of times in a step. If two of them share a core, or one
waits for another process's time slice, a step takes ten times as long and more. The scenario
`busy` of bench/ shows this.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from llmd.engine.protocol import Start
from llmd.worker.cpu.threads import num_physical_cores, num_threads_of

_TASKS = Path("/proc/self/task")

WINDOW_S = 0.25
"""Computing time between two checks of how long the threads waited."""

TRIAL_S = 0.06
"""The same while a larger number of threads is tried out.

The kernel counts a wait only when it is over, which takes some time slices of 4 ms.
"""

MAX_WAITING_SHARE = 0.3
"""A thread that waits for its core longer than this share slows the step down (on two cores)."""

FIRST_PAUSE_S = 0.5
"""Computing time with fewer threads until all are tried again, the first time."""

LAST_PAUSE_S = 2.0
"""The longest such time. It doubles with each failed trial."""

_all_cpus = frozenset(os.sched_getaffinity(0))


def set_up_threads(start: Start) -> Start:
    """Return `start` with the numbers of threads filled in. Call this before llama.cpp is loaded.

    If there are as many threads as cores, let the OpenMP runtime bind each thread to a core.
    Respect its variables if they are set already. Do not bind threads where that is forbidden:
    the runtime would abort the process.
    """
    num_threads, num_threads_batch = num_threads_of(start)
    is_free = "OMP_PROC_BIND" not in os.environ and "OMP_PLACES" not in os.environ
    has_all = max(num_threads, num_threads_batch) == num_physical_cores()
    if is_free and has_all and _bind_to(_all_cpus):
        os.environ["OMP_PROC_BIND"] = "close"
        os.environ["OMP_PLACES"] = "cores"
    return msgspec.structs.replace(
        start, num_threads=num_threads, num_threads_batch=num_threads_batch
    )


def leave_core() -> None:
    """Let the calling thread run on any core, although its parent may be bound to one."""
    _bind_to(_all_cpus)


def _bind_to(cpus: frozenset[int]) -> bool:
    """Bind the calling thread to these CPUs; return whether that is allowed.

    A sandbox or a changed cpuset may forbid it.
    """
    try:
        os.sched_setaffinity(0, cpus)
    except OSError:
        return False
    return True


class ThreadCount:
    """Decide how many threads compute, from how many had to wait for a core."""

    def __init__(self, max_threads: int) -> None:
        self.num_threads = self._max_threads = max_threads
        self._pause_s = FIRST_PAUSE_S
        self._paused_s = 0.0
        self._is_trial = False

    @property
    def window_s(self) -> float:
        """Computing time until the next `update`."""
        return TRIAL_S if self._is_trial else WINDOW_S

    def update(self, busy_s: float, num_waiting: int) -> None:
        """Add the number of threads that waited too long for a core in `busy_s` of computing."""
        if self.num_threads > 1 and num_waiting:
            self._pause_s = (
                min(2 * self._pause_s, LAST_PAUSE_S) if self._is_trial else FIRST_PAUSE_S
            )
            self.num_threads = max(1, self.num_threads - num_waiting)
            self._paused_s, self._is_trial = 0.0, False
        elif self.num_threads < self._max_threads:
            self._paused_s += busy_s
            if self._paused_s >= self._pause_s:
                self.num_threads, self._is_trial = self._max_threads, True
        else:
            self._is_trial = False


class Team:
    """Monitor the OpenMP threads of the decoding thread, and adapt their number."""

    def __init__(self, max_threads: int, resize: Callable[[int], None]) -> None:
        """Start with `max_threads` threads. `resize` is called with each new number."""
        self._thread_count = ThreadCount(max_threads)
        self._resize = resize
        self._core = frozenset(os.sched_getaffinity(0))
        self._busy_s = 0.0
        self._waited_ns = self._read()

    def update(self, step_s: float) -> None:
        """Add the duration of a step. The decoding thread calls this after each step."""
        self._busy_s += step_s
        if self._busy_s < self._thread_count.window_s:
            return
        before, self._waited_ns = self._waited_ns, self._read()
        limit = MAX_WAITING_SHARE * self._busy_s * 1e9
        num_waiting = sum(
            now - before.get(task, 0) > limit for task, now in self._waited_ns.items()
        )
        num_before = self._thread_count.num_threads
        self._thread_count.update(self._busy_s, num_waiting)
        self._busy_s = 0.0
        if self._thread_count.num_threads != num_before:
            self._change()

    def _change(self) -> None:
        num_threads = self._thread_count.num_threads
        self._resize(num_threads)
        # A single thread waits for no other, and may move to whichever core is free.
        _bind_to(self._core if num_threads > 1 else _all_cpus)

    def _read(self) -> dict[str, int]:
        """Return for each native thread the nanoseconds that it has waited for a core."""
        others = {
            str(thread.native_id)
            for thread in threading.enumerate()
            if thread is not threading.current_thread()
        }
        return {task.name: _waited_ns(task) for task in _TASKS.iterdir() if task.name not in others}


def _waited_ns(task: Path) -> int:
    """Return how long a thread has waited, 0 if it has ended or the kernel does not count."""
    try:
        return int((task / "schedstat").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
