from __future__ import annotations

from typing import Any

import pytest

from llmd.chat.joined_run import JoinedRun
from llmd.chat.outcome import Piece
from llmd.engine.mailbox import Mailbox
from llmd.engine.protocol import Delta
from llmd.errors import ClientGone
from tests.support.fake_engine import begins, done
from tests.support.retries_harness import RetriesHarness, attempt
from tests.support.service import Background, until


@pytest.fixture
def no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep waiting readers from waking up before an item comes."""
    for name in ("run.POLL_S", "run.PUSHED_POLL_S", "joined_run.POLL_S"):
        monkeypatch.setattr(f"llmd.chat.{name}", 20)


@pytest.mark.usefixtures("no_poll")
def test_pieces_reach_the_readers_without_the_thread_that_makes_the_run(
    harness: RetriesHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread of the run sleeps until the end; pieces reach the readers without it."""
    engine = harness.service.engine
    engine.script = begins()
    run = harness.run(attempt())
    [generation] = engine.generations
    until(lambda: generation._is_awaited)
    monkeypatch.setattr(generation, "next", pytest.fail)
    generation.put(Delta(0, "Hello"))
    assert next(run) == Delta(0, "Hello")
    generation.put(done())
    assert list(run) == []
    run.close()


class Listener:
    """A client to which pieces are pushed while its own thread waits for the end of the run."""

    def __init__(self, run: JoinedRun) -> None:
        self.pushed: list[Piece] = []
        self.is_ready = True
        run.push_to(lambda: self.is_ready, self.pushed.append)
        self.reader = Background(lambda: [piece for piece in run if piece is not None])
        until(lambda: run._mailbox._is_awaited)


@pytest.mark.usefixtures("no_poll")
def test_no_reader_is_woken_for_a_piece_that_is_pushed(harness: RetriesHarness) -> None:
    """A pushed piece wakes no reader; the readers wake at the end of the run."""
    engine = harness.service.engine
    engine.script = begins()
    runs = [harness.run(attempt(again=False)), harness.run(attempt())]
    clients = [Listener(run) for run in runs]
    [generation] = engine.generations
    until(lambda: generation._is_awaited)
    generation.put(Delta(0, "Hello"))
    assert [client.pushed for client in clients] == [[Delta(0, "Hello")]] * 2
    assert all(client.reader.is_running for client in clients)
    generation.put(done())
    for run, client in zip(runs, clients, strict=True):
        assert client.reader.wait() == []
        assert run.outcome is not None
        run.close()


def test_both_threads_sleep_longer_once_a_piece_was_pushed(
    harness: RetriesHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a piece was pushed, the thread of the run and the reader wake less often."""
    monkeypatch.setattr("llmd.chat.run.POLL_S", 0.01)
    monkeypatch.setattr("llmd.chat.run.PUSHED_POLL_S", 20)
    waits: list[tuple[object, float]] = []
    wait = Mailbox.next

    def noted(mailbox: Mailbox[Any], timeout_s: float) -> Any:
        waits.append((mailbox, timeout_s))
        return wait(mailbox, timeout_s)

    monkeypatch.setattr(Mailbox, "next", noted)
    engine = harness.service.engine
    engine.script = begins()
    run = harness.run(attempt())
    client = Listener(run)
    generation = engine.generations[0]
    until(lambda: generation._is_awaited)
    while not client.pushed:
        generation.put(Delta(0, "Hello"))
    until(lambda: {(generation, 20), (run._mailbox, 20)} <= set(waits))
    generation.put(done())
    client.reader.wait()
    run.close()


@pytest.mark.usefixtures("no_poll")
def test_client_that_is_not_ready_holds_no_other_up(harness: RetriesHarness) -> None:
    """A client that is not ready gets the pieces from its own thread, and others do not wait."""
    engine = harness.service.engine
    engine.script = begins()
    runs = [harness.run(attempt(again=False)), harness.run(attempt())]
    slow, quick = (Listener(run) for run in runs)
    slow.is_ready = False
    generation = engine.generations[0]
    until(lambda: generation._is_awaited)
    generation.put(Delta(0, "Hello"))
    generation.put(done())
    assert (slow.reader.wait(), slow.pushed) == ([Delta(0, "Hello")], [])
    assert (quick.reader.wait(), quick.pushed) == ([], [Delta(0, "Hello")])
    for run in runs:
        run.close()


def test_what_was_said_before_a_retry_came_is_read_first(harness: RetriesHarness) -> None:
    """No new piece is pushed before the earlier ones are read."""
    engine = harness.service.engine
    engine.script = begins("Hello")
    first = harness.run(attempt(again=False))
    assert next(first) == Delta(0, "Hello")
    second = harness.run(attempt())
    pushed: list[Piece] = []
    second.push_to(lambda: True, pushed.append)
    generation = engine.generations[0]
    generation.put(Delta(0, " you"))
    assert list(map(next, [second, second])) == [Delta(0, "Hello"), Delta(0, " you")]
    assert pushed == []
    generation.put(done())
    for run in (first, second):
        run.close()


@pytest.mark.usefixtures("no_poll")
def test_nothing_is_pushed_to_a_client_that_has_gone(harness: RetriesHarness) -> None:
    """If a client has disconnected, the piece wakes its thread, which notices it."""
    engine = harness.service.engine
    engine.script = begins()
    gone: list[bool] = []
    run = harness.run(attempt(), lambda: bool(gone))
    client = Listener(run)
    gone.append(True)
    generation = engine.generations[0]
    until(lambda: generation._is_awaited)
    generation.put(Delta(0, "Hello"))
    with pytest.raises(ClientGone):
        client.reader.wait()
    assert client.pushed == []
    generation.put(done())
