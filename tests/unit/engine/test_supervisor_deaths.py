"""Workers that die, and their restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmd.engine.health import MAX_DEATHS
from llmd.engine.model import State
from llmd.errors import EngineDied, EngineFailed, ModelInvalid
from tests.support.fake_backend import wait_until
from tests.support.supervisors import LIMIT_S, Supervise, read_delta, read_done, submit


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGABRT"])
def test_worker_that_dies_is_started_again(
    supervise: Supervise, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """After a death, requests end in an error and the worker is restarted."""
    supervisor = supervise()
    supervisor.wait_ready()
    waiting = submit(supervisor, "wait here")
    assert read_delta(waiting) == "here"
    deadly = submit(supervisor, f"die {name}")
    for generation in (waiting, deadly):
        with pytest.raises(EngineDied):
            read_done(generation)
    supervisor.wait_ready()
    assert supervisor.num_restarts == 1
    assert len(supervisor._generations) == 0
    assert read_done(submit(supervisor, "say hello")) == ("hello", "stop")
    assert f"the worker of a.gguf ended: {name}" in caplog.text


def test_worker_that_raves_is_replaced(supervise: Supervise) -> None:
    """A worker that sends an invalid frame is replaced."""
    supervisor = supervise()
    supervisor.wait_ready()
    with pytest.raises(EngineDied):
        read_done(submit(supervisor, "rave now"))
    supervisor.wait_ready()
    assert read_done(submit(supervisor, "say hello")) == ("hello", "stop")


def test_cpu_code_that_cannot_run_here_is_left_out(
    supervise: Supervise, caplog: pytest.LogCaptureFixture
) -> None:
    """After an illegal instruction, the next worker uses another variant of the CPU code."""
    supervisor = supervise("only plain")
    supervisor.wait_ready()
    assert supervisor.info is not None
    assert supervisor.info.cpu_variant == "plain"
    assert "CPU code best cannot run here" in caplog.text
    assert "CPU code good cannot run here" in caplog.text


def test_another_death_is_not_the_fault_of_the_cpu_code(supervise: Supervise) -> None:
    """After another kind of death, the next worker uses the same CPU code."""
    supervisor = supervise()
    supervisor.wait_ready()
    with pytest.raises(EngineDied):
        read_done(submit(supervisor, "die SIGSEGV"))
    supervisor.wait_ready()
    assert supervisor.info is not None
    assert supervisor.info.cpu_variant == "best"


def test_three_deaths_leave_the_model_failed_with_the_reason(supervise: Supervise) -> None:
    """After three deaths the model has failed, and the reason has the last output."""
    supervisor = supervise("die")
    with pytest.raises(EngineFailed, match=r"died 3 times within 5 minutes .*last words"):
        supervisor.wait_ready()
    with pytest.raises(EngineFailed, match="load the model again, or another"):
        supervisor.check_ready()
    assert supervisor.num_restarts == MAX_DEATHS - 1
    supervisor._thread.join(LIMIT_S)
    assert not supervisor._thread.is_alive()


def test_deaths_long_apart_never_make_a_model_fail(supervise: Supervise) -> None:
    """Only deaths within five minutes count."""
    supervisor = supervise()
    for _ in range(MAX_DEATHS + 1):
        supervisor.wait_ready()
        with pytest.raises(EngineDied):
            read_done(submit(supervisor, "die SIGKILL"))
        for number, died_at in enumerate(supervisor._deaths._times):
            supervisor._deaths._times[number] = died_at - 1000
    supervisor.wait_ready()
    assert read_done(submit(supervisor, "say hello")) == ("hello", "stop")


def test_a_file_that_was_changed_is_checked_before_it_is_loaded_again(
    supervise: Supervise, tmp_path: Path
) -> None:
    """A file that was changed is checked again before the worker is restarted."""
    wrong: list[str] = []

    def check() -> None:
        if wrong:
            raise ModelInvalid(wrong[0])

    supervisor = supervise(check=check)
    supervisor.wait_ready()
    wrong.append("a.gguf is truncated")
    with pytest.raises(EngineDied):
        read_done(submit(supervisor, "die SIGKILL"))
    wait_until(lambda: supervisor.state is State.FAILED)
    assert supervisor.reason == "a.gguf is truncated"
