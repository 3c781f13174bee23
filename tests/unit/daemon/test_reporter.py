"""What systemd hears while a model loads, serves and fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import msgspec
import pytest

from llmd.daemon.reporter import Reporter
from llmd.daemon.systemd import Systemd
from llmd.engine.engine import EngineStatus
from llmd.engine.protocol import ModelInfo
from tests.support.fake_engine import INFO
from tests.support.service import until

LOADING = EngineStatus(
    state="loading",
    reason="the model is being loaded",
    model="a.gguf",
    info=None,
    progress=0.4,
    num_restarts=0,
    num_running=0,
    num_waiting=0,
    num_prompt_tokens=0,
    num_cached_tokens=0,
    num_completion_tokens=0,
    tokens_per_s=0.0,
)


class Manager(Systemd):
    """Keep what it is told."""

    def __init__(self, watchdog_s: float) -> None:
        super().__init__({})
        self.watchdog_s = watchdog_s
        self.told: list[str] = []

    def tell(self, *lines: str) -> None:
        self.told += lines


class Reported:
    """A reporter that looks at an engine without pause."""

    def __init__(self) -> None:
        self.manager = Manager(0.003)
        self.status = LOADING
        self.lives = threading.Event()
        self.lives.set()
        self.reporter = Reporter(self.manager, lambda: self.status, self._is_alive)
        self.reporter.start()

    def _is_alive(self) -> bool:
        return self.lives.is_set()

    def become(self, state: str, reason: str = "", info: ModelInfo | None = None) -> None:
        """Give the engine another state."""
        self.status = msgspec.structs.replace(LOADING, state=state, reason=reason, info=info)


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reported]:
    """Give such a reporter."""
    monkeypatch.setattr("llmd.daemon.reporter._LOOK_EVERY_S", 0.001)
    made = Reported()
    yield made
    made.reporter.stop(1)


def test_a_model_that_loads_gets_more_time_and_no_ready(reported: Reported) -> None:
    """However long it takes; the status says how far it is."""
    told = reported.manager.told
    until(lambda: told.count("EXTEND_TIMEOUT_USEC=30000000") > 3)
    assert "READY=1" not in told
    assert told.count("STATUS=loading a.gguf: 40%") == 1


def test_ready_is_told_once_and_only_when_the_model_serves(reported: Reported) -> None:
    """With the CPU code and the threads in the status."""
    reported.become("ready", info=INFO)
    told = reported.manager.told
    until(lambda: told.count("WATCHDOG=1") > 3)
    assert told.count("READY=1") == 1
    assert "STATUS=serving a.gguf with CPU code x64 on 2 threads" in told


def test_a_daemon_without_a_model_is_ready_to_be_given_one(reported: Reported) -> None:
    """The status says why there is no answer."""
    reported.become("failed", "there is no GGUF file")
    until(lambda: "READY=1" in reported.manager.told)
    assert "STATUS=cannot answer: there is no GGUF file" in reported.manager.told


def test_a_daemon_that_hangs_gives_no_proof_of_life(reported: Reported) -> None:
    """So systemd ends it and starts another."""
    reported.become("ready", info=INFO)
    until(lambda: "WATCHDOG=1" in reported.manager.told)
    reported.lives.clear()
    reported.become("failed", "once more")
    until(lambda: "STATUS=cannot answer: once more" in reported.manager.told)
    count = reported.manager.told.count("WATCHDOG=1")
    reported.become("failed", "and again")
    until(lambda: "STATUS=cannot answer: and again" in reported.manager.told)
    assert reported.manager.told.count("WATCHDOG=1") <= count + 1
    reported.lives.set()
    until(lambda: reported.manager.told.count("WATCHDOG=1") > count + 1)


def test_the_end_is_announced_with_the_time_it_may_take(reported: Reported) -> None:
    """And nothing is told after that."""
    reported.reporter.stop(40)
    assert reported.manager.told[-3:] == [
        "STOPPING=1",
        "STATUS=going down",
        "EXTEND_TIMEOUT_USEC=40000000",
    ]


def test_a_failure_to_look_is_logged_and_looked_again(
    reported: Reported, caplog: pytest.LogCaptureFixture
) -> None:
    """Without proof of life meanwhile."""
    good = reported.status
    reported.status = None  # type: ignore[assignment]  # what no engine gives
    until(lambda: "could not be told" in caplog.text)
    reported.status = good
    told = len(reported.manager.told)
    until(lambda: len(reported.manager.told) > told)
