"""Count the cores that this process may use, and the threads to run on them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from llmd.engine.protocol import Start

_SYS_CPU = Path("/sys/devices/system/cpu")
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def num_usable_cores() -> int:
    """Return the number of physical cores within the CPU affinity and the cgroup's quota.

    The quota is rounded down, because a thread that waits for its share stalls all others.
    """
    num_cores = num_physical_cores()
    quota = cgroup_quota(_OWN_CGROUP, _CGROUPS)
    return max(1, num_cores if quota is None else min(num_cores, int(quota)))


def num_threads_of(start: Start) -> tuple[int, int]:
    """Return (threads that generate, threads that read prompts). 0 means all usable cores."""
    num_cores = num_usable_cores()
    return start.num_threads or num_cores, start.num_threads_batch or num_cores


def num_physical_cores() -> int:
    """Return the number of physical cores within the CPU affinity."""
    return len({_core_of(cpu) for cpu in os.sched_getaffinity(0)})


def cgroup_quota(own: Path, root: Path) -> float | None:
    """Return the smallest quota from this cgroup up to the root in CPUs, or None without any."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    quotas: list[float] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            quotas += _quotas(root, path, _read_v2)
        elif "cpu" in controllers.split(","):
            quotas += _quotas(root / "cpu", path, _read_v1)
    return min(quotas, default=None)


def _quotas(root: Path, path: str, read: Callable[[Path], float | None]) -> list[float]:
    """Return the quotas of a cgroup and of its ancestors."""
    folder = root / path.lstrip("/")
    found: list[float] = []
    while folder.is_relative_to(root):
        quota = read(folder)
        if quota is not None:
            found.append(quota)
        folder = folder.parent
    return found


def _read_v2(folder: Path) -> float | None:
    try:
        limit, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if limit == "max" else int(limit) / int(period)


def _read_v1(folder: Path) -> float | None:
    try:
        limit = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return limit / period if limit > 0 else None


def _core_of(cpu: int) -> str:
    """Return a name for the physical core of a logical CPU. Hyper-threads share a core's name."""
    try:
        return (_SYS_CPU / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)
