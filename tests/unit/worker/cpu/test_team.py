"""The number of computing threads while other processes are busy."""

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


def test_all_threads_go_on_while_none_waits() -> None:
    """The number of threads does not change while no thread waits."""
    thread_count = ThreadCount(4)
    for _ in range(100):
        thread_count.update(WINDOW_S, 0)
    assert thread_count.num_threads == 4


def test_number_is_reduced_by_the_threads_that_waited() -> None:
    """If two of four threads wait, two go on."""
    thread_count = ThreadCount(4)
    thread_count.update(WINDOW_S, 2)
    assert thread_count.num_threads == 2


def test_one_thread_always_computes() -> None:
    """One thread goes on even if all wait."""
    thread_count = ThreadCount(2)
    thread_count.update(WINDOW_S, 2)
    thread_count.update(WINDOW_S, 1)
    assert thread_count.num_threads == 1


def test_all_are_tried_again_after_a_pause_and_stay_if_none_waits() -> None:
    """After a pause all threads are tried, and stay if none of them waits."""
    thread_count = ThreadCount(2)
    thread_count.update(WINDOW_S, 1)
    thread_count.update(FIRST_PAUSE_S, 0)
    assert (thread_count.num_threads, thread_count.window_s) == (2, TRIAL_S)
    thread_count.update(TRIAL_S, 0)
    assert (thread_count.num_threads, thread_count.window_s) == (2, WINDOW_S)


def test_failed_trials_come_less_often_up_to_a_limit() -> None:
    """The pause before a trial doubles with each failed trial, up to a limit."""
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
    """The number stays between one and all, and returns to all when no thread waits any more."""
    thread_count = ThreadCount(max_threads)
    for busy_s, num_waiting in notes:
        thread_count.update(busy_s, num_waiting)
        assert 1 <= thread_count.num_threads <= max_threads
    thread_count.update(LAST_PAUSE_S, 0)
    assert thread_count.num_threads == max_threads


def test_the_kernels_count_of_waiting_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that waits for a third of the time is too slow, one for a tenth is not."""
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
    """A thread without a count of its waiting, such as one that has ended, changes nothing."""
    monkeypatch.setattr(team, "_TASKS", tmp_path)
    (tmp_path / "1").mkdir()
    sizes: list[int] = []
    thread_team = Team(2, sizes.append)
    thread_team.update(2 * WINDOW_S)
    assert sizes == []


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, str]]:
    """Return a function that returns the variables for the OpenMP runtime, none at first."""
    names = ("OMP_PROC_BIND", "OMP_PLACES")
    for name in names:
        # Set each variable first, so that it is restored after the test.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(threads, "num_usable_cores", lambda: 4)
    monkeypatch.setattr(team, "num_physical_cores", lambda: 4)
    return lambda: {name: os.environ[name] for name in names if name in os.environ}


def test_as_many_threads_as_cores_are_bound_to_them(
    variables: Callable[[], dict[str, str]],
) -> None:
    """By default there are as many threads as cores, each bound to a core."""
    start = set_up_threads(START)
    assert (start.num_threads, start.num_threads_batch) == (4, 4)
    assert variables() == {"OMP_PROC_BIND": "close", "OMP_PLACES": "cores"}


def test_fewer_threads_than_cores_are_not_bound(
    variables: Callable[[], dict[str, str]],
) -> None:
    """Fewer threads than cores are not bound, so that they can leave a busy core."""
    start = set_up_threads(msgspec.structs.replace(START, num_threads=2, num_threads_batch=3))
    assert (start.num_threads, start.num_threads_batch) == (2, 3)
    assert variables() == {}


def test_where_binding_is_forbidden_nothing_is_bound(
    variables: Callable[[], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If binding is forbidden, no variables are set and no exception is raised."""

    def refuse(_pid: int, _cpus: frozenset[int]) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    set_up_threads(START)
    assert variables() == {}
    leave_core()


@pytest.mark.parametrize("name", ["OMP_PROC_BIND", "OMP_PLACES"])
def test_variables_of_the_environment_are_respected(
    variables: Callable[[], dict[str, str]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Variables for the OpenMP runtime in the environment are respected."""
    monkeypatch.setenv(name, "false")
    set_up_threads(START)
    assert variables() == {name: "false"}
