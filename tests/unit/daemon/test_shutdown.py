"""How the daemon goes down."""

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


class Down:
    """A daemon with two streams, and the signals that its main thread gets."""

    def __init__(self) -> None:
        self.admission = Admission(2, 2)
        self.drain_s = 3600.0
        self.drained: list[int] = []
        self.announced: list[float] = []
        self.shutdown = Shutdown(
            self.admission, lambda: self.drain_s, on_begin=self.announced.append, end=sys.exit
        )

    def terminate(self) -> None:
        """Come as SIGTERM."""
        self.shutdown.on_signal(signal.SIGTERM, None)


@pytest.fixture
def down() -> Iterator[Down]:
    """Give such a daemon; SIGUSR2, by which it ends, is only noted."""
    made = Down()
    before = signal.signal(signal.SIGUSR2, lambda number, _frame: made.drained.append(number))
    yield made
    made.admission.expire()
    until(lambda: made.drained or not made.admission.draining)
    signal.signal(signal.SIGUSR2, before)


def test_an_idle_daemon_ends_at_once(down: Down) -> None:
    """Whatever time there is to drain."""
    down.terminate()
    until(lambda: down.drained)
    assert not down.admission.expired
    [within_s] = down.announced
    assert within_s > down.drain_s


def test_running_answers_get_their_time_and_new_ones_none(down: Down) -> None:
    """The daemon ends when the last has left."""
    ticket = down.admission.enter("a", None, lambda: False)
    down.terminate()
    until(lambda: down.admission.draining)
    with pytest.raises(Draining):
        down.admission.enter("b", None, lambda: False)
    assert not down.drained
    ticket.release()
    until(lambda: down.drained)
    assert not down.admission.expired


def test_answers_beyond_their_time_are_cut_off(
    down: Down, caplog: pytest.LogCaptureFixture
) -> None:
    """They are told to end, and get a moment to be kept; the log counts them."""
    caplog.set_level(logging.INFO)
    down.drain_s = 0.0
    ticket = down.admission.enter("a", None, lambda: False)
    down.terminate()
    until(lambda: down.admission.expired)
    assert not down.drained
    ticket.release()
    until(lambda: down.drained)
    assert "1 answers are cut off" in caplog.text


def test_answers_that_do_not_end_even_then_do_not_hold_the_daemon(
    down: Down, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hang is no reason to stay."""
    monkeypatch.setattr("llmd.daemon.shutdown.CANCEL_WITHIN_S", 0.0)
    down.drain_s = 0.0
    down.admission.enter("a", None, lambda: False)
    down.terminate()
    until(lambda: down.drained)


def test_a_second_signal_ends_at_once(down: Down) -> None:
    """With a code that says so, and without a second drain."""
    ticket = down.admission.enter("a", None, lambda: False)
    down.terminate()
    with pytest.raises(SystemExit) as ended:
        down.shutdown.on_signal(signal.SIGINT, None)
    assert ended.value.code == 1
    ticket.release()
    until(lambda: down.drained)
    assert len(down.drained) == 1


def test_the_end_of_the_drain_ends_the_main_loop(down: Down) -> None:
    """By the exception that the HTTP server waits for, with the code of success."""
    with pytest.raises(SystemExit) as ended:
        down.shutdown.on_drained(signal.SIGUSR2, None)
    assert ended.value.code == 0
