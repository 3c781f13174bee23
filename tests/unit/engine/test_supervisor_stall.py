"""Workers that hang, and workers that are only slow."""

from __future__ import annotations

import os
import signal
import time

import msgspec
import pytest

from llmd import config
from llmd.engine.health import StallLimit
from llmd.engine.process import WorkerSettings
from llmd.engine.protocol import Beat
from llmd.errors import EngineDied, EngineFailed
from tests.support.fake_backend import wait_until
from tests.support.supervisors import (
    FAKE_WORKER,
    LIMIT_S,
    Supervise,
    is_alive,
    read_delta,
    read_done,
    submit,
)


def test_worker_that_hangs_in_a_request_is_killed_and_replaced(supervise: Supervise) -> None:
    """A request that makes no progress ends in an error, and the next one is served."""
    supervisor = supervise(settings=config.Engine(load_timeout_s=LIMIT_S, stall_s=0.05))
    supervisor.wait_ready()
    pid, _ = read_done(submit(supervisor, "say pid"))
    with pytest.raises(EngineDied):
        read_done(submit(supervisor, "hang now"))
    supervisor.wait_ready()
    assert not is_alive(int(pid))
    assert read_done(submit(supervisor, "say hello")) == ("hello", "stop")


def test_worker_that_is_stopped_from_outside_is_killed_and_replaced(supervise: Supervise) -> None:
    """A stopped process counts as hanging."""
    supervisor = supervise(settings=config.Engine(load_timeout_s=LIMIT_S, stall_s=0.05))
    supervisor.wait_ready()
    pid, _ = read_done(submit(supervisor, "say pid"))
    os.kill(int(pid), signal.SIGSTOP)
    with pytest.raises(EngineDied):
        read_done(submit(supervisor, "say hello"))
    supervisor.wait_ready()
    assert read_done(submit(supervisor, "say hello")) == ("hello", "stop")


def test_worker_that_hangs_before_its_first_step_is_killed(supervise: Supervise) -> None:
    """The limit of the first request is `stall_s`, however long loading may take."""
    settings = config.Engine(load_timeout_s=LIMIT_S, stall_s=0.05)
    supervisor = supervise(settings=settings)
    supervisor.wait_ready()
    process = supervisor._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(EngineDied):
        read_done(submit(supervisor, "say hello"))
    assert time.monotonic() - began < LIMIT_S / 2
    supervisor.wait_ready()


def test_model_whose_loading_makes_no_progress_is_given_up(supervise: Supervise) -> None:
    """A worker that hangs while loading is killed after a limit of its own."""
    supervisor = supervise("hang", settings=config.Engine(load_timeout_s=0.05))
    with pytest.raises(EngineFailed, match="SIGKILL"):
        supervisor.wait_ready()


def test_stall_is_judged_by_the_steps_before(supervise: Supervise) -> None:
    """The stall limit follows from earlier steps, and an idle worker never hangs."""
    settings = config.Engine(load_timeout_s=1000, stall_s=30)
    supervisor = supervise(
        settings=settings,
        worker_settings=WorkerSettings(command=FAKE_WORKER.command, poll_s=LIMIT_S),
    )
    supervisor.wait_ready()

    def is_stalled(silent_s: float) -> bool:
        supervisor._last_event_at = time.monotonic() - silent_s
        return supervisor._is_stalled()

    assert not is_stalled(10_000)
    generation = submit(supervisor, "wait here")
    assert time.monotonic() - supervisor._last_event_at < 5000
    assert read_delta(generation) == "here"
    wait_until(lambda: supervisor._stall_limit.limit_s() > 0)
    supervisor._stall_limit = StallLimit(1)
    assert not is_stalled(25)
    assert is_stalled(35)
    supervisor._stall_limit.add(1.0, 1)
    assert not is_stalled(25)
    assert is_stalled(35)
    supervisor._stall_limit.add(20.0, 1)
    assert not is_stalled(190)
    assert is_stalled(210)


def test_stall_limit_is_learned_from_steps_alone(supervise: Supervise) -> None:
    """Beats between steps do not change the stall limit."""
    supervisor = supervise()
    supervisor.wait_ready()
    beat = Beat(
        num_running=0,
        num_waiting=0,
        num_prompt_tokens=0,
        num_cached_tokens=0,
        num_completion_tokens=0,
        step_s=2.0,
    )
    supervisor._handle(beat)
    limit_s = supervisor._stall_limit.limit_s()
    assert limit_s
    supervisor._handle(msgspec.structs.replace(beat, step_s=0.0))
    assert supervisor._stall_limit.limit_s() == limit_s
