"""Supervisors with real processes of the fake worker."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import NoReturn

import pytest

from llmd.engine.model import State
from llmd.engine.process import WorkerProcess, WorkerSettings
from llmd.engine.supervisor import Supervisor
from llmd.errors import EngineDied, EngineFailed, EngineLoading, InvalidField
from tests.support.fake_backend import wait_until
from tests.support.supervisors import (
    FAKE_WORKER,
    Supervise,
    is_alive,
    read_delta,
    read_done,
    submit,
)


def _wait_for(supervisor: Supervisor, state: State) -> None:
    wait_until(lambda: supervisor.state is state)


def test_worker_that_loaded_serves(supervise: Supervise) -> None:
    """A loaded worker reports its model, answers requests and sends counts."""
    supervisor = supervise()
    supervisor.wait_ready()
    supervisor.check_ready()
    assert supervisor.info is not None
    assert supervisor.info.architecture == "fake"
    generation = submit(supervisor, "say hello")
    assert generation.model == "a.gguf"
    assert read_done(generation) == ("hello", "stop")
    assert supervisor.beat is not None
    assert supervisor.beat.num_completion_tokens == 20
    assert supervisor.num_restarts == 0


def test_model_that_loads_is_not_ready_and_says_how_far_it_is(supervise: Supervise) -> None:
    """While the model loads, a request is refused with the progress and a time to retry."""
    supervisor = supervise("hang")
    wait_until(lambda: supervisor.progress > 0)
    with pytest.raises(EngineLoading, match=r"being loaded \(40%\)") as caught:
        submit(supervisor, "say hello")
    assert caught.value.retry_after_s > 0
    assert len(supervisor._generations) == 0


def test_model_that_is_refused_failed_at_once_with_the_reason(supervise: Supervise) -> None:
    """A model that cannot be loaded is not loaded again."""
    supervisor = supervise("refuse")
    with pytest.raises(EngineFailed, match="not a model that runs here"):
        supervisor.wait_ready()
    assert supervisor.num_restarts == 0
    with pytest.raises(EngineFailed, match="not a model that runs here"):
        submit(supervisor, "say hello")


def test_refused_request_is_an_error_of_its_own(supervise: Supervise) -> None:
    """The worker goes on after it refused a prompt."""
    supervisor = supervise()
    supervisor.wait_ready()
    with pytest.raises(InvalidField, match="no template"):
        read_done(submit(supervisor, "refuse no template"))
    assert len(supervisor._generations) == 0
    assert read_done(submit(supervisor, "say hello")) == ("hello", "stop")


def test_cancelled_request_ends_with_done(supervise: Supervise) -> None:
    """A cancel reaches the worker, and a cancel after the end does nothing."""
    supervisor = supervise()
    supervisor.wait_ready()
    generation = submit(supervisor, "wait here")
    assert read_delta(generation) == "here"
    generation.cancel()
    assert read_done(generation) == ("", "cancelled")
    generation.cancel()
    assert read_done(submit(supervisor, "say hello")) == ("hello", "stop")


def test_worker_that_cannot_be_started_leaves_the_model_failed(
    supervise: Supervise, tmp_path: Path
) -> None:
    """If no process can be started, the reason is the error of the system."""
    supervisor = supervise(
        worker_settings=WorkerSettings(command=(str(tmp_path / "gone"),), restart_after_s=0.01)
    )
    with pytest.raises(EngineFailed, match=r"no process could be started: .*gone"):
        supervisor.wait_ready()


@pytest.fixture
def _no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the creation of processes fail."""

    def refuse(_worker: WorkerSettings) -> NoReturn:
        raise BlockingIOError(errno.EAGAIN, "no process to be had")

    monkeypatch.setattr("llmd.engine.supervisor.WorkerProcess", refuse)


@pytest.mark.usefixtures("_no_process")
def test_shortage_of_processes_is_waited_out(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the system lacks processes, the supervisor retries and does not count a death."""
    monkeypatch.setattr("llmd.engine.supervisor.SPAWN_AGAIN_AFTER_S", 0.005)
    supervisor = supervise()
    wait_until(lambda: "no process to be had" in supervisor.reason)
    with pytest.raises(EngineLoading, match="no process to be had"):
        supervisor.check_ready()
    monkeypatch.setattr("llmd.engine.supervisor.WorkerProcess", WorkerProcess)
    supervisor.wait_ready()
    assert supervisor.num_restarts == 0
    assert read_done(submit(supervisor, "say hello")) == ("hello", "stop")


@pytest.mark.usefixtures("_no_process")
def test_stop_does_not_wait_for_a_process_to_be_had(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`stop` ends the pause between two attempts."""
    monkeypatch.setattr("llmd.engine.supervisor.SPAWN_AGAIN_AFTER_S", 10_000)
    supervisor = supervise()
    wait_until(lambda: "no process to be had" in supervisor.reason)
    supervisor.stop()
    assert not supervisor._thread.is_alive()


def test_forget_reaches_the_worker_that_serves(supervise: Supervise) -> None:
    """`forget` reaches a worker that serves, and does nothing without one."""
    supervisor = supervise()
    supervisor.wait_ready()
    generation = submit(supervisor, "wait here")
    assert read_delta(generation) == "here"
    supervisor.forget("ann", "1")
    assert read_delta(generation) == "forgot ann 1"
    supervisor.forget("ann", None)
    assert read_delta(generation) == "forgot ann None"
    supervisor.stop()
    supervisor.forget("ann", None)


def test_stop_ends_the_requests_and_the_process(supervise: Supervise) -> None:
    """`stop` ends all requests with an error, and no process is left."""
    supervisor = supervise()
    supervisor.wait_ready()
    pid, _ = read_done(submit(supervisor, "say pid"))
    generation = submit(supervisor, "wait here")
    assert read_delta(generation) == "here"
    supervisor.stop()
    supervisor.stop()
    assert not is_alive(int(pid))
    assert supervisor.num_restarts == 0
    with pytest.raises(EngineDied):
        read_done(generation)


def test_stop_ends_a_worker_that_loads(supervise: Supervise) -> None:
    """A worker that is loading is killed at once, and requests are refused."""
    supervisor = supervise("hang")
    wait_until(lambda: supervisor.progress > 0)
    process = supervisor._process
    assert process is not None
    supervisor.stop()
    assert not is_alive(process.pid)
    assert supervisor.num_restarts == 0
    with pytest.raises(EngineFailed, match="stopped"):
        submit(supervisor, "say hello")
    with pytest.raises(EngineFailed, match="stopped"):
        supervisor.wait_ready()


def test_stop_ends_the_wait_for_a_restart(supervise: Supervise) -> None:
    """A supervisor that is stopped before a restart starts no worker."""
    supervisor = supervise(
        "die", worker_settings=WorkerSettings(command=FAKE_WORKER.command, restart_after_s=0.1)
    )
    wait_until(lambda: len(supervisor._deaths._times) == 1)
    supervisor.stop()
    assert supervisor.state is State.STOPPED
    assert supervisor._process is None
    assert not supervisor._thread.is_alive()


def test_retired_supervisor_finishes_its_requests_first(
    supervise: Supervise, tmp_path: Path
) -> None:
    """A retired supervisor stops after its last answer has ended."""
    supervisor = supervise()
    supervisor.wait_ready()
    generation = submit(supervisor, f"until {tmp_path / 'go'}")
    read_delta(generation)
    supervisor.retire()
    assert supervisor.state is State.READY
    (tmp_path / "go").touch()
    assert read_done(generation) == ("", "stop")
    _wait_for(supervisor, State.STOPPED)
