"""Facts about this machine, and the load of other processes during a measurement."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

from msgspec import Struct

from llmd.worker.cpu.threads import num_usable_cores

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
MAX_OTHERS = 0.03
"""Share of all cores' time that other processes may take before results are doubtful."""

MAX_STOLEN = 0.02
"""Share of all cores' time that the hypervisor may take before results are doubtful."""


def facts() -> dict[str, str]:
    """Return facts that explain this machine's results, without names of it or its user."""
    names = [
        line.partition(":")[2].strip()
        for line in (_PROC / "cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory_kb = int((_PROC / "meminfo").read_text().split()[1])
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": f"{os.cpu_count()}, {num_usable_cores()} of them used",
        "governor": _governor(),
        "memory": f"{memory_kb / 2**20:.0f} GiB",
        "kernel": platform.release(),
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "Python": platform.python_version(),
    }


class Disturbance(Struct, frozen=True, kw_only=True):
    """The load that disturbed a measurement. Shares are of all cores' time."""

    seconds: float
    stolen: float
    """Share that the hypervisor gave to other machines."""
    others: float
    """Share of processes that do not belong to the measurement."""
    busiest: str
    """Name of the busiest of these processes."""
    client: float
    """Share of this process, which sends the requests."""

    @property
    def warnings(self) -> list[str]:
        """Reasons why the results are doubtful."""
        found: list[str] = []
        if self.others > MAX_OTHERS:
            found.append(f"other processes took {self.others:.0%} ({self.busiest} most)")
        if self.stolen > MAX_STOLEN:
            found.append(f"{self.stolen:.0%} was stolen")
        return found


class DisturbanceMeter:
    """Measure the CPU time of all processes from now on.

    The processes that this one started belong to the measurement.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._total = _total_s()
        self._own = _own_s()
        self._client = time.process_time()
        self._processes = _processes_s()

    def read(self) -> Disturbance:
        """Return the disturbance since the start."""
        seconds = time.monotonic() - self._began
        capacity_s = seconds * (os.cpu_count() or 1)
        (busy_s, stolen_s), (busy_before_s, stolen_before_s) = _total_s(), self._total
        others_s = busy_s - busy_before_s - (_own_s() - self._own)
        ours = {os.getpid(), *descendants(os.getpid())}
        spent = {
            key: spent_s - self._processes.get(key, 0.0)
            for key, spent_s in _processes_s().items()
            if key[0] not in ours
        }
        busiest = max(spent, key=spent.__getitem__, default=(0, "none"))
        return Disturbance(
            seconds=seconds,
            stolen=(stolen_s - stolen_before_s) / capacity_s,
            others=max(0.0, others_s / capacity_s),
            busiest=busiest[1],
            client=(time.process_time() - self._client) / capacity_s,
        )


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, directly or indirectly."""
    found: list[int] = []
    for file in (_PROC / str(pid)).glob("task/*/children"):
        try:
            children = [int(child) for child in file.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


def _governor() -> str:
    try:
        file = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
        return Path(file).read_text().strip()
    except OSError:
        return "unknown (a virtual machine)"


def _total_s() -> tuple[float, float]:
    """Return the seconds that all cores were busy, and those that the hypervisor took."""
    fields = (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, stolen = map(int, fields[:8])
    return (user + nice + system + irq + softirq) / _TICKS, stolen / _TICKS


def _stat(pid: int) -> tuple[str, list[str]] | None:
    """Return a process's name and the fields of its stat file after the name."""
    try:
        head, _, rest = (_PROC / str(pid) / "stat").read_text().rpartition(")")
    except OSError:
        return None
    return head.partition("(")[2], rest.split()


def _own_s() -> float:
    """Return the CPU seconds of this process and of all that it ever started."""
    spent = 0
    for pid in (os.getpid(), *descendants(os.getpid())):
        found = _stat(pid)
        if found is not None:
            # The last two of these fields are of children that have ended.
            spent += sum(map(int, found[1][11:15]))
    return spent / _TICKS


def _processes_s() -> dict[tuple[int, str], float]:
    """Return the CPU seconds of each process, without its children."""
    found: dict[tuple[int, str], float] = {}
    for folder in _PROC.iterdir():
        stat = _stat(int(folder.name)) if folder.name.isdecimal() else None
        if stat is not None:
            found[int(folder.name), stat[0]] = sum(map(int, stat[1][11:13])) / _TICKS
    return found
