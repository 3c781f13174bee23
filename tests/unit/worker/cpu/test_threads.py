from __future__ import annotations

from pathlib import Path

import pytest

from llmd.worker.cpu import threads
from llmd.worker.cpu.threads import cgroup_quota, num_usable_cores


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_smallest_quota_of_a_cgroup_and_those_above_it_counts(tmp_path: Path) -> None:
    """In cgroup v2, the limit of a slice applies to the services within it."""
    own = _write(tmp_path / "own", "0::/system.slice/llmd.service\n")
    root = tmp_path / "cgroup"
    _write(root / "cpu.max", "max 100000\n")
    _write(root / "system.slice/cpu.max", "150000 100000\n")
    _write(root / "system.slice/llmd.service/cpu.max", "400000 100000\n")
    assert cgroup_quota(own, root) == 1.5


def test_cgroup_without_a_limit_has_no_quota(tmp_path: Path) -> None:
    """A quota of max, or a folder without the file, is no limit."""
    own = _write(tmp_path / "own", "0::/a/b\n")
    root = tmp_path / "cgroup"
    _write(root / "a/b/cpu.max", "max 100000\n")
    assert cgroup_quota(own, root) is None


def test_old_cgroups_are_read_by_their_cpu_controller(tmp_path: Path) -> None:
    """In cgroup v1, the line with the cpu controller counts, and -1 is no limit."""
    own = _write(tmp_path / "own", "5:memory:/m\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/x\n")
    root = tmp_path / "cgroup"
    _write(root / "cpu/cpu.cfs_quota_us", "-1\n")
    _write(root / "cpu/cpu.cfs_period_us", "100000\n")
    _write(root / "cpu/docker/abc/cpu.cfs_quota_us", "250000\n")
    _write(root / "cpu/docker/abc/cpu.cfs_period_us", "100000\n")
    _write(root / "memory/m/cpu.cfs_quota_us", "1\n")
    _write(root / "memory/m/cpu.cfs_period_us", "100000\n")
    assert cgroup_quota(own, root) == 2.5


@pytest.mark.parametrize("line", ["0::/../../elsewhere\n", "0::/\n", ""])
def test_cgroup_seen_from_outside_its_namespace_has_the_quota_of_the_root(
    tmp_path: Path, line: str
) -> None:
    """A path that leads out of the tree, as in a container, has the quota of the root."""
    own = _write(tmp_path / "own", line)
    root = _write(tmp_path / "cgroup/cpu.max", "300000 100000\n").parent
    assert cgroup_quota(own, root) == (3.0 if line else None)


def test_machine_without_cgroups_has_no_quota(tmp_path: Path) -> None:
    """Without the file of the cgroup there is no limit."""
    assert cgroup_quota(tmp_path / "none", tmp_path) is None


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max", 2), ("350000", 2), ("199999", 1), ("50000", 1)],
)
def test_threads_are_whole_cores_within_affinity_and_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, expected: int
) -> None:
    """Hyper-threads count once, a quota is rounded down, and there is at least one thread."""
    for cpu, core in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        _write(tmp_path / f"sys/cpu{cpu}/topology/thread_siblings_list", f"{core}\n")
    own = _write(tmp_path / "own", "0::/\n")
    _write(tmp_path / "cgroup/cpu.max", f"{quota} 100000\n")
    monkeypatch.setattr(threads, "_SYS_CPU", tmp_path / "sys")
    monkeypatch.setattr(threads, "_OWN_CGROUP", own)
    monkeypatch.setattr(threads, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1, 2, 3})
    assert num_usable_cores() == expected


def test_cpus_without_topology_are_cores_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each allowed CPU counts if the kernel does not report hyper-threads."""
    monkeypatch.setattr(threads, "_SYS_CPU", tmp_path)
    monkeypatch.setattr(threads, "_OWN_CGROUP", tmp_path / "none")
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {1, 2, 5})
    assert num_usable_cores() == 3
