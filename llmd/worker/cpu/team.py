"""The threads that compute together: each on a core of its own, fewer where a neighbour is busy.

They wait for each other hundreds of times a step. Two of them on one core, or one that waits for
a neighbour's time slice, hold up all: by ten and more, as bench/'s scenario `busy` shows.
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
TRIAL_S = 0.06
"""Of computing. The kernel tells of a wait when it is over: some time slices of 4 ms."""

MAX_WAITING_SHARE = 0.3
"""A thread that waits longer for its core costs more than it brings: measured on two cores."""

FIRST_PAUSE_S = 0.5
LAST_PAUSE_S = 2.0
"""Of computing with fewer threads, until all are tried again."""

_all_cpus = frozenset(os.sched_getaffinity(0))


def set_up_threads(start: Start) -> Start:
    """Count the threads, before llama.cpp is loaded: return `start` with their numbers.

    Where they have all cores, the OpenMP runtime will give each one of its own. Who sets its
    variables for the process means them. It would abort the process where it must not bind.
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
    """Let the calling thread run on any core: what it was started by may be bound to one."""
    _bind_to(_all_cpus)


def _bind_to(cpus: frozenset[int]) -> bool:
    """Bind the calling thread to these; False where a sandbox or a changed cpuset forbids it."""
    try:
        os.sched_setaffinity(0, cpus)
    except OSError:
        return False
    return True


class ThreadCount:
    """How many threads shall compute. Arithmetic alone."""

    def __init__(self, max_threads: int) -> None:
        self.num_threads = self._max_threads = max_threads
        self._pause_s = FIRST_PAUSE_S
        self._paused_s = 0.0
        self._is_trial = False

    @property
    def window_s(self) -> float:
        """How long to compute before the next `update`."""
        return TRIAL_S if self._is_trial else WINDOW_S

    def update(self, busy_s: float, num_waiting: int) -> None:
        """Take in how many threads waited too long for a core in a window of `busy_s`."""
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
    """Watches the threads of the thread that decodes, and says how many there shall be."""

    def __init__(self, max_threads: int, resize: Callable[[int], None]) -> None:
        """`resize` sets how many threads compute from now on."""
        self._thread_count = ThreadCount(max_threads)
        self._resize = resize
        self._core = frozenset(os.sched_getaffinity(0))
        self._busy_s = 0.0
        self._waited_ns = self._read()

    def update(self, step_s: float) -> None:
        """Take in a step's duration; for the thread that decodes, after each step."""
        self._busy_s += step_s
        if self._busy_s < self._thread_count.window_s:
            return
        before, self._waited_ns = self._waited_ns, self._read()
        limit = MAX_WAITING_SHARE * self._busy_s * 1e9
        num_waiting = sum(now - before.get(of, 0) > limit for of, now in self._waited_ns.items())
        was = self._thread_count.now
        self._thread_count.update(self._busy_s, num_waiting)
        self._busy_s = 0.0
        if self._thread_count.now != was:
            self._change()

    def _change(self) -> None:
        num_threads = self._thread_count.now
        self._resize(num_threads)
        # Alone it needs to wait for nobody, and goes where the neighbour is not.
        _bind_to(self._core if num_threads > 1 else _all_cpus)

    def _read(self) -> dict[str, int]:
        """Return how many ns each native thread has waited for a core."""
        others = {
            str(thread.native_id)
            for thread in threading.enumerate()
            if thread is not threading.current_thread()
        }
        return {task.name: _waited_ns(task) for task in _TASKS.iterdir() if task.name not in others}


def _waited_ns(task: Path) -> int:
    """Return 0 for a thread that has ended, or where the kernel does not count."""
    try:
        return int((task / "schedstat").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
