"""The reports to systemd while a model loads, is served and fails."""

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


class FakeSystemd(Systemd):
    """Keep the lines that it is sent."""

    def __init__(self, watchdog_s: float) -> None:
        super().__init__({})
        self.watchdog_s = watchdog_s
        self.lines: list[str] = []

    def notify(self, *lines: str) -> None:
        self.lines += lines


class Reported:
    """A reporter that checks an engine almost without pause."""

    def __init__(self) -> None:
        self.systemd = FakeSystemd(0.003)
        self.status = LOADING
        self.lives = threading.Event()
        self.lives.set()
        self.reporter = Reporter(self.systemd, lambda: self.status, self._is_alive)
        self.reporter.start()

    def _is_alive(self) -> bool:
        return self.lives.is_set()

    def become(self, state: str, reason: str = "", info: ModelInfo | None = None) -> None:
        """Put the engine into another state."""
        self.status = msgspec.structs.replace(LOADING, state=state, reason=reason, info=info)


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reported]:
    """Provide a running reporter."""
    monkeypatch.setattr("llmd.daemon.reporter._STARTING_INTERVAL_S", 0.001)
    made = Reported()
    yield made
    made.reporter.stop(1)


def test_while_a_model_loads_more_time_is_requested(reported: Reported) -> None:
    """A loading model is reported with its progress, and the daemon not yet as ready."""
    lines = reported.systemd.lines
    until(lambda: lines.count("EXTEND_TIMEOUT_USEC=30000000") > 3)
    assert "READY=1" not in lines
    assert lines.count("STATUS=loading a.gguf: 40%") == 1


def test_ready_is_reported_once_and_only_when_the_model_is_served(reported: Reported) -> None:
    """``READY=1`` is sent once. The status names the CPU code and the threads."""
    reported.become("ready", info=INFO)
    lines = reported.systemd.lines
    until(lambda: lines.count("WATCHDOG=1") > 3)
    assert lines.count("READY=1") == 1
    assert "STATUS=serving a.gguf with CPU code x64 on 2 threads" in lines


def test_a_daemon_without_a_model_is_ready_to_be_given_one(reported: Reported) -> None:
    """A daemon whose model failed is ready, and its status says why it cannot answer."""
    reported.become("failed", "there is no GGUF file")
    until(lambda: "READY=1" in reported.systemd.lines)
    assert "STATUS=cannot answer: there is no GGUF file" in reported.systemd.lines


def test_a_daemon_that_hangs_sends_no_watchdog_message(reported: Reported) -> None:
    """A daemon that is not alive sends no ``WATCHDOG=1``, so that systemd restarts it."""
    reported.become("ready", info=INFO)
    until(lambda: "WATCHDOG=1" in reported.systemd.lines)
    reported.lives.clear()
    reported.become("failed", "once more")
    until(lambda: "STATUS=cannot answer: once more" in reported.systemd.lines)
    count = reported.systemd.lines.count("WATCHDOG=1")
    reported.become("failed", "and again")
    until(lambda: "STATUS=cannot answer: and again" in reported.systemd.lines)
    assert reported.systemd.lines.count("WATCHDOG=1") <= count + 1
    reported.lives.set()
    until(lambda: reported.systemd.lines.count("WATCHDOG=1") > count + 1)


def test_the_end_is_announced_with_the_time_it_may_take(reported: Reported) -> None:
    """The end is reported with its time limit, and nothing is reported after it."""
    reported.reporter.stop(40)
    assert reported.systemd.lines[-3:] == [
        "STOPPING=1",
        "STATUS=shutting down",
        "EXTEND_TIMEOUT_USEC=40000000",
    ]


def test_a_failed_check_is_logged_and_repeated(
    reported: Reported, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed check sends no watchdog message, and the next check reports again."""
    good = reported.status
    reported.status = None  # type: ignore[assignment]  # no engine returns it
    until(lambda: "cannot report the state" in caplog.text)
    reported.status = good
    num_lines = len(reported.systemd.lines)
    until(lambda: len(reported.systemd.lines) > num_lines)
