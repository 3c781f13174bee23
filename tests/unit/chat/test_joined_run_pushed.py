from __future__ import annotations

from typing import Any

import pytest

from llmd.chat.joined_run import JoinedRun
from llmd.chat.outcome import Piece
from llmd.engine.mailbox import Mailbox
from llmd.engine.protocol import Delta
from llmd.errors import ClientGone
from tests.support.fake_engine import begins, done
from tests.support.retries_harness import Desk, attempt
from tests.support.service import Background, until


@pytest.fixture
def no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a reader that waits wake for nothing but what it is given."""
    for name in ("run.POLL_S", "run.PUSHED_POLL_S", "joined_run.POLL_S"):
        monkeypatch.setattr(f"llmd.chat.{name}", 20)


@pytest.mark.usefixtures("no_poll")
def test_pieces_reach_the_readers_without_the_thread_that_makes_the_run(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sleeps until the end: two threads to wake for each token would be one too many."""
    engine = desk.service.engine
    engine.script = begins()
    run = desk.run(attempt())
    [generation] = engine.generations
    until(lambda: generation._is_awaited)
    monkeypatch.setattr(generation, "next", pytest.fail)
    generation.put(Delta(0, "Hello"))
    assert next(run) == Delta(0, "Hello")
    generation.put(done())
    assert list(run) == []
    run.close()


class Listener:
    """A client to which pieces are pushed while its own thread waits for the end."""

    def __init__(self, run: JoinedRun) -> None:
        self.pushed: list[Piece] = []
        self.is_ready = True
        run.push_to(lambda: self.is_ready, self.pushed.append)
        self.reader = Background(lambda: [piece for piece in run if piece is not None])
        until(lambda: run._mailbox._is_awaited)


@pytest.mark.usefixtures("no_poll")
def test_no_reader_is_woken_for_a_piece_that_is_pushed(desk: Desk) -> None:
    """The thread that brings it sends it to all clients; their own ones see the end."""
    engine = desk.service.engine
    engine.script = begins()
    runs = [desk.run(attempt(again=False)), desk.run(attempt())]
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
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the run and that of its reader: to look up so often would be for nothing."""
    monkeypatch.setattr("llmd.chat.run.POLL_S", 0.01)
    monkeypatch.setattr("llmd.chat.run.PUSHED_POLL_S", 20)
    waits: list[tuple[object, float]] = []
    wait = Mailbox.next

    def noted(mailbox: Mailbox[Any], timeout_s: float) -> Any:
        waits.append((mailbox, timeout_s))
        return wait(mailbox, timeout_s)

    monkeypatch.setattr(Mailbox, "next", noted)
    engine = desk.service.engine
    engine.script = begins()
    run = desk.run(attempt())
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
def test_client_that_is_not_ready_holds_no_other_up(desk: Desk) -> None:
    """It gets the piece by its own thread, and what follows behind it."""
    engine = desk.service.engine
    engine.script = begins()
    runs = [desk.run(attempt(again=False)), desk.run(attempt())]
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


def test_what_was_said_before_a_retry_came_is_read_first(desk: Desk) -> None:
    """Nothing is pushed past it."""
    engine = desk.service.engine
    engine.script = begins("Hello")
    first = desk.run(attempt(again=False))
    assert next(first) == Delta(0, "Hello")
    second = desk.run(attempt())
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
def test_nothing_is_pushed_to_a_client_that_has_gone(desk: Desk) -> None:
    """The piece wakes its thread, which finds out."""
    engine = desk.service.engine
    engine.script = begins()
    gone: list[bool] = []
    run = desk.run(attempt(), lambda: bool(gone))
    client = Listener(run)
    gone.append(True)
    generation = engine.generations[0]
    until(lambda: generation._is_awaited)
    generation.put(Delta(0, "Hello"))
    with pytest.raises(ClientGone):
        client.reader.wait()
    assert client.pushed == []
    generation.put(done())
