"""How many threads compute beside a neighbour."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.worker import team
from llmd.worker.team import (
    FIRST_PAUSE_S,
    LAST_PAUSE_S,
    TRIAL_S,
    WINDOW_S,
    Headcount,
    Team,
    bind_team,
)


def test_no_thread_waits_and_all_go_on() -> None:
    """A quiet machine changes nothing."""
    headcount = Headcount(4)
    for _ in range(100):
        headcount.note(WINDOW_S, 0)
    assert headcount.now == 4


def test_as_many_fewer_compute_as_waited() -> None:
    """Two of four cores are taken: two threads are left."""
    headcount = Headcount(4)
    headcount.note(WINDOW_S, 2)
    assert headcount.now == 2


def test_one_thread_always_computes() -> None:
    """When all wait there is still one."""
    headcount = Headcount(2)
    headcount.note(WINDOW_S, 2)
    headcount.note(WINDOW_S, 1)
    assert headcount.now == 1


def test_all_are_tried_again_after_a_pause_and_stay_when_nobody_waits() -> None:
    """The neighbour has gone."""
    headcount = Headcount(2)
    headcount.note(WINDOW_S, 1)
    headcount.note(FIRST_PAUSE_S, 0)
    assert (headcount.now, headcount.window_s) == (2, TRIAL_S)
    headcount.note(TRIAL_S, 0)
    assert (headcount.now, headcount.window_s) == (2, WINDOW_S)


def test_failed_trials_come_less_often_up_to_a_limit() -> None:
    """The neighbour stays: what is lost by trying is little."""
    headcount = Headcount(2)
    headcount.note(WINDOW_S, 1)
    pauses = []
    for _ in range(6):
        num_steps = 0
        while headcount.now == 1:
            headcount.note(0.125, 0)
            num_steps += 1
        pauses.append(num_steps * 0.125)
        headcount.note(TRIAL_S, 1)
    assert pauses == [0.5, 1.0, 2.0, LAST_PAUSE_S, LAST_PAUSE_S, LAST_PAUSE_S]


@given(
    most=st.integers(1, 64),
    notes=st.lists(st.tuples(st.floats(0.01, 3.0), st.integers(0, 64)), max_size=60),
)
def test_there_is_always_one_and_never_more_than_all(
    most: int, notes: list[tuple[float, int]]
) -> None:
    """Whatever the neighbours do; and soon after they stop, all compute again."""
    headcount = Headcount(most)
    for busy_s, num_waiting in notes:
        headcount.note(busy_s, num_waiting)
        assert 1 <= headcount.now <= most
    headcount.note(LAST_PAUSE_S, 0)
    assert headcount.now == most


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
    threads = Team(2, sizes.append)
    wait(first=0.0, second=0.1 * WINDOW_S)
    threads.note(WINDOW_S)
    assert sizes == []
    wait(first=0.0, second=0.34 * WINDOW_S)
    threads.note(WINDOW_S / 2)
    assert sizes == []
    threads.note(WINDOW_S / 2)
    assert sizes == [1]


def test_a_kernel_that_does_not_count_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a thread that has ended meanwhile is no error."""
    monkeypatch.setattr(team, "_TASKS", tmp_path)
    (tmp_path / "1").mkdir()
    sizes: list[int] = []
    threads = Team(2, sizes.append)
    threads.note(2 * WINDOW_S)
    assert sizes == []


@pytest.mark.parametrize("name", ["OMP_PROC_BIND", "OMP_PLACES"])
def test_who_sets_where_threads_run_means_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment says of the OpenMP runtime is left alone."""
    monkeypatch.setenv("OMP_PROC_BIND", "x")
    monkeypatch.delenv("OMP_PROC_BIND")
    monkeypatch.setenv("OMP_PLACES", "x")
    monkeypatch.delenv("OMP_PLACES")
    monkeypatch.setenv(name, "false")
    bind_team()
    assert os.environ[name] == "false"
    assert {"OMP_PROC_BIND", "OMP_PLACES"} & set(os.environ) == {name}
