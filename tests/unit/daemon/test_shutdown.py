"""The shutdown of the daemon."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator

import pytest

from llmd.chat.admission import Admission
from llmd.daemon.shutdown import Shutdown
from llmd.errors import Draining
from tests.support.service import until


class Daemon:
    """A shutdown over two streams, and the signals that end the main thread."""

    def __init__(self) -> None:
        self.admission = Admission(2, 2)
        self.drain_s = 3600.0
        self.drained: list[int] = []
        self.announced: list[float] = []
        self.shutdown = Shutdown(
            self.admission, lambda: self.drain_s, on_begin=self.announced.append, end=sys.exit
        )

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.shutdown.on_signal(signal.SIGTERM, None)


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """Provide a daemon. SIGUSR2, which would end it, is only recorded."""
    made = Daemon()
    before = signal.signal(signal.SIGUSR2, lambda number, _frame: made.drained.append(number))
    yield made
    made.admission.expire()
    until(lambda: made.drained or not made.admission.draining)
    signal.signal(signal.SIGUSR2, before)


def test_an_idle_daemon_ends_at_once(daemon: Daemon) -> None:
    """A daemon without running answers ends at once, however long `drain_s` is."""
    daemon.terminate()
    until(lambda: daemon.drained)
    assert not daemon.admission.expired
    [within_s] = daemon.announced
    assert within_s > daemon.drain_s


def test_running_answers_may_finish_and_new_ones_are_refused(daemon: Daemon) -> None:
    """The daemon ends as soon as the last running answer is complete."""
    ticket = daemon.admission.enter("a", None, lambda: False)
    daemon.terminate()
    until(lambda: daemon.admission.draining)
    with pytest.raises(Draining):
        daemon.admission.enter("b", None, lambda: False)
    assert not daemon.drained
    ticket.release()
    until(lambda: daemon.drained)
    assert not daemon.admission.expired


def test_answers_that_take_too_long_are_cut_off(
    daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    """Answers that exceed `drain_s` are cut off, get time to be stored, and are logged."""
    caplog.set_level(logging.INFO)
    daemon.drain_s = 0.0
    ticket = daemon.admission.enter("a", None, lambda: False)
    daemon.terminate()
    until(lambda: daemon.admission.expired)
    assert not daemon.drained
    ticket.release()
    until(lambda: daemon.drained)
    assert "1 answers are cut off" in caplog.text


def test_answers_that_do_not_end_do_not_keep_the_daemon_running(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon ends even if an answer does not react to being cut off."""
    monkeypatch.setattr("llmd.daemon.shutdown.CANCEL_WITHIN_S", 0.0)
    daemon.drain_s = 0.0
    daemon.admission.enter("a", None, lambda: False)
    daemon.terminate()
    until(lambda: daemon.drained)


def test_a_second_signal_ends_at_once(daemon: Daemon) -> None:
    """A second signal exits with code 1 and starts no second drain."""
    ticket = daemon.admission.enter("a", None, lambda: False)
    daemon.terminate()
    with pytest.raises(SystemExit) as ended:
        daemon.shutdown.on_signal(signal.SIGINT, None)
    assert ended.value.code == 1
    ticket.release()
    until(lambda: daemon.drained)
    assert len(daemon.drained) == 1


def test_the_end_of_the_drain_ends_the_main_loop(daemon: Daemon) -> None:
    """After the drain, SystemExit with code 0 ends the HTTP server."""
    with pytest.raises(SystemExit) as ended:
        daemon.shutdown.on_drained(signal.SIGUSR2, None)
    assert ended.value.code == 0
