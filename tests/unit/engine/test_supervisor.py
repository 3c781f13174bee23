"""A supervisor with a real process, which is a worker without a model."""

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
    """Ready comes with the model's numbers, and requests with answers and counts."""
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
    """A request meanwhile is refused with the part that is loaded, and told when to come again."""
    supervisor = supervise("hang")
    wait_until(lambda: supervisor.progress > 0)
    with pytest.raises(EngineLoading, match=r"being loaded \(40%\)") as caught:
        submit(supervisor, "say hello")
    assert caught.value.retry_after_s > 0
    assert len(supervisor._generations) == 0


def test_model_that_is_refused_failed_at_once_with_the_reason(supervise: Supervise) -> None:
    """What cannot be loaded is not tried again: the reason would be the same."""
    supervisor = supervise("refuse")
    with pytest.raises(EngineFailed, match="not a model that runs here"):
        supervisor.wait_ready()
    assert supervisor.num_restarts == 0
    with pytest.raises(EngineFailed, match="not a model that runs here"):
        submit(supervisor, "say hello")


def test_refused_request_is_an_error_of_its_own(supervise: Supervise) -> None:
    """The worker lives on after it refused a prompt."""
    supervisor = supervise()
    supervisor.wait_ready()
    with pytest.raises(InvalidField, match="no template"):
        read_done(submit(supervisor, "refuse no template"))
    assert len(supervisor._generations) == 0
    assert read_done(submit(supervisor, "say hello")) == ("hello", "stop")


def test_cancelled_request_ends_with_done(supervise: Supervise) -> None:
    """A cancel reaches the worker; after the end it does nothing."""
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
    """Without a process to be had the reason is what the system said."""
    supervisor = supervise(
        worker_settings=WorkerSettings(command=(str(tmp_path / "gone"),), restart_after_s=0.01)
    )
    with pytest.raises(EngineFailed, match=r"no process could be started: .*gone"):
        supervisor.wait_ready()


@pytest.fixture
def _no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the system refuse a process for now."""

    def refuse(_worker: WorkerSettings) -> NoReturn:
        raise BlockingIOError(errno.EAGAIN, "no process to be had")

    monkeypatch.setattr("llmd.engine.supervisor.WorkerProcess", refuse)


@pytest.mark.usefixtures("_no_process")
def test_shortage_of_processes_is_waited_out(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is no fault of the model: it is tried until there is a process again."""
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
    """However long the pause between two attempts is, a stop ends it."""
    monkeypatch.setattr("llmd.engine.supervisor.SPAWN_AGAIN_AFTER_S", 10_000)
    supervisor = supervise()
    wait_until(lambda: "no process to be had" in supervisor.reason)
    supervisor.stop()
    assert not supervisor._thread.is_alive()


def test_forget_reaches_the_worker_that_serves(supervise: Supervise) -> None:
    """Owner and session are passed on; while there is no worker there is nothing to forget."""
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
    """Requests get a typed error, and no process is left."""
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
    """A worker that does not look at its socket is killed at once, and requests are refused."""
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
    """A supervisor that is about to start a worker anew starts none after it was stopped."""
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
    """It stops when the last answer has ended, not before."""
    supervisor = supervise()
    supervisor.wait_ready()
    generation = submit(supervisor, f"until {tmp_path / 'go'}")
    read_delta(generation)
    supervisor.retire()
    assert supervisor.state is State.READY
    (tmp_path / "go").touch()
    assert read_done(generation) == ("", "stop")
    _wait_for(supervisor, State.STOPPED)
