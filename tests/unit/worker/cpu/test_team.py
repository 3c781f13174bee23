"""How many threads compute beside a neighbour."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.engine.protocol import Start
from llmd.worker.cpu import team, threads
from llmd.worker.cpu.team import (
    FIRST_PAUSE_S,
    LAST_PAUSE_S,
    TRIAL_S,
    WINDOW_S,
    Team,
    ThreadCount,
    leave_core,
    set_up_threads,
)

START = Start(
    model_path="a.gguf",
    library_dir="",
    num_context_tokens=512,
    max_sequences=1,
    max_batch_tokens=64,
    num_threads=0,
    num_threads_batch=0,
    kv_type="f16",
    max_state_bytes=0,
)


def test_no_thread_waits_and_all_go_on() -> None:
    """A quiet machine changes nothing."""
    thread_count = ThreadCount(4)
    for _ in range(100):
        thread_count.update(WINDOW_S, 0)
    assert thread_count.num_threads == 4


def test_as_many_fewer_compute_as_waited() -> None:
    """Two of four cores are taken: two threads are left."""
    thread_count = ThreadCount(4)
    thread_count.update(WINDOW_S, 2)
    assert thread_count.num_threads == 2


def test_one_thread_always_computes() -> None:
    """When all wait there is still one."""
    thread_count = ThreadCount(2)
    thread_count.update(WINDOW_S, 2)
    thread_count.update(WINDOW_S, 1)
    assert thread_count.num_threads == 1


def test_all_are_tried_again_after_a_pause_and_stay_when_nobody_waits() -> None:
    """The neighbour has gone."""
    thread_count = ThreadCount(2)
    thread_count.update(WINDOW_S, 1)
    thread_count.update(FIRST_PAUSE_S, 0)
    assert (thread_count.num_threads, thread_count.window_s) == (2, TRIAL_S)
    thread_count.update(TRIAL_S, 0)
    assert (thread_count.num_threads, thread_count.window_s) == (2, WINDOW_S)


def test_failed_trials_come_less_often_up_to_a_limit() -> None:
    """The neighbour stays: what is lost by trying is little."""
    thread_count = ThreadCount(2)
    thread_count.update(WINDOW_S, 1)
    pauses = []
    for _ in range(6):
        num_steps = 0
        while thread_count.num_threads == 1:
            thread_count.update(0.125, 0)
            num_steps += 1
        pauses.append(num_steps * 0.125)
        thread_count.update(TRIAL_S, 1)
    assert pauses == [0.5, 1.0, 2.0, LAST_PAUSE_S, LAST_PAUSE_S, LAST_PAUSE_S]


@given(
    max_threads=st.integers(1, 64),
    notes=st.lists(st.tuples(st.floats(0.01, 3.0), st.integers(0, 64)), max_size=60),
)
def test_there_is_always_one_and_never_more_than_all(
    max_threads: int, notes: list[tuple[float, int]]
) -> None:
    """Whatever the neighbours do; and soon after they stop, all compute again."""
    thread_count = ThreadCount(max_threads)
    for busy_s, num_waiting in notes:
        thread_count.update(busy_s, num_waiting)
        assert 1 <= thread_count.num_threads <= max_threads
    thread_count.update(LAST_PAUSE_S, 0)
    assert thread_count.num_threads == max_threads


def test_the_kernels_count_of_waiting_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each thread's own: a third of the time is too long, a tenth is not."""
    monkeypatch.setattr(team, "_TASKS", tmp_path)
    monkeypatch.setattr(os, "sched_setaffinity", lambda _pid, _cpus: None)
    waited_ns = {"1": 0, "2": 0}

    def wait(**more: float) -> None:
        for name, seconds in zip(waited_ns, more.values(), strict=True):
            waited_ns[name] += round(seconds * 1e9)
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "schedstat").write_text(f"5000 {waited_ns[name]} 7\n")

    sizes: list[int] = []
    wait(first=3.0, second=3.0)
    thread_team = Team(2, sizes.append)
    wait(first=0.0, second=0.1 * WINDOW_S)
    thread_team.update(WINDOW_S)
    assert sizes == []
    wait(first=0.0, second=0.34 * WINDOW_S)
    thread_team.update(WINDOW_S / 2)
    assert sizes == []
    thread_team.update(WINDOW_S / 2)
    assert sizes == [1]


def test_a_kernel_that_does_not_count_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a thread that has ended meanwhile is no error."""
    monkeypatch.setattr(team, "_TASKS", tmp_path)
    (tmp_path / "1").mkdir()
    sizes: list[int] = []
    thread_team = Team(2, sizes.append)
    thread_team.update(2 * WINDOW_S)
    assert sizes == []


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, str]]:
    """Return what tells the process's variables for the OpenMP runtime: none at first."""
    names = ("OMP_PROC_BIND", "OMP_PLACES")
    for name in names:
        # What is set by the test is taken back after it.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(threads, "num_usable_cores", lambda: 4)
    monkeypatch.setattr(team, "num_physical_cores", lambda: 4)
    return lambda: {name: os.environ[name] for name in names if name in os.environ}


def test_as_many_threads_as_cores_are_bound_to_them(
    variables: Callable[[], dict[str, str]],
) -> None:
    """The default; and what was 0 is counted now, as long as it can be."""
    start = set_up_threads(START)
    assert (start.num_threads, start.num_threads_batch) == (4, 4)
    assert variables() == {"OMP_PROC_BIND": "close", "OMP_PLACES": "cores"}


def test_fewer_threads_than_cores_may_go_where_there_is_room(
    variables: Callable[[], dict[str, str]],
) -> None:
    """Bound ones could not leave a core that a neighbour takes."""
    start = set_up_threads(msgspec.structs.replace(START, num_threads=2, num_threads_batch=3))
    assert (start.num_threads, start.num_threads_batch) == (2, 3)
    assert variables() == {}


def test_where_binding_is_forbidden_nothing_is_bound(
    variables: Callable[[], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The OpenMP runtime would abort the process; and no thread of ours ends by it."""

    def refuse(_pid: int, _cpus: frozenset[int]) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    set_up_threads(START)
    assert variables() == {}
    leave_core()


@pytest.mark.parametrize("name", ["OMP_PROC_BIND", "OMP_PLACES"])
def test_who_sets_where_threads_run_means_it(
    variables: Callable[[], dict[str, str]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """What the environment says of the OpenMP runtime is left alone."""
    monkeypatch.setenv(name, "false")
    set_up_threads(START)
    assert variables() == {name: "false"}
