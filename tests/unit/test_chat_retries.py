from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from llmd.chat import retries
from llmd.chat.completions import Options
from llmd.chat.outcome import Piece
from llmd.chat.retries import Attempt, JoinedRun, Retries
from llmd.chat.run import Run
from llmd.engine.mailbox import Mailbox
from llmd.engine.protocol import Delta
from llmd.errors import ClientGone, InvalidField, UnknownModel
from tests.asking import is_free, never
from tests.fake_engine import begins, done, says
from tests.service import Background, Service, until


def _attempt(
    *, key: str = "k", body: str = "hi", owner: str = "ann", again: bool = True
) -> Attempt:
    digest = hashlib.sha256(body.encode()).digest()
    return Attempt(owner=owner, key=key, digest=digest, is_retry=again)


class Desk:
    """Retries over a whole daemon, and how often something was really begun."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.retries = Retries()

    def run(self, attempt: Attempt, is_gone: Callable[[], bool] = never) -> JoinedRun:
        def start(is_left: Callable[[], bool]) -> Run:
            options = Options(model="default")
            return self.service.completions.start("ann", "hi", options, is_left)

        return self.retries.run(attempt, is_gone, start)

    @property
    def num_runs(self) -> int:
        return len(self.service.engine.requests)


@pytest.fixture
def desk(service: Service) -> Desk:
    """Give a desk."""
    return Desk(service)


@pytest.fixture
def no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a reader that waits wake for nothing but what it is given."""
    for name in ("run.POLL_S", "run.PUSHED_POLL_S", "retries.POLL_S"):
        monkeypatch.setattr(f"llmd.chat.{name}", 20)


def _text(run: JoinedRun) -> str:
    text = "".join(piece.text for piece in run if isinstance(piece, Delta))
    run.close()
    assert run.outcome is not None
    assert run.outcome.text == text
    return text


def test_finished_answer_is_given_again(desk: Desk) -> None:
    """A retry gets every piece under the same id, and the engine is not asked again."""
    first = desk.run(_attempt(again=False))
    assert _text(first) == "Hello you"
    second = desk.run(_attempt())
    assert _text(second) == "Hello you"
    assert (second.id, second.created_at) == (first.id, first.created_at)
    assert second.usage == first.usage
    assert desk.num_runs == 1


@pytest.mark.usefixtures("no_poll")
def test_pieces_reach_the_readers_without_the_thread_that_makes_the_run(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sleeps until the end: two threads to wake for each token would be one too many."""
    engine = desk.service.engine
    engine.script = begins()
    run = desk.run(_attempt())
    [generation] = engine.generations
    until(lambda: generation._is_awaited)
    monkeypatch.setattr(generation, "next", pytest.fail)
    generation.put(Delta(0, "Hello"))
    assert next(run) == Delta(0, "Hello")
    generation.put(done())
    assert list(run) == []
    run.close()


def test_retry_joins_the_run_that_is_on_its_way(desk: Desk) -> None:
    """It hears what was said before it came, and then what both wait for."""
    engine = desk.service.engine
    engine.script = begins("Hello")
    first = desk.run(_attempt(again=False))
    assert next(first) == Delta(0, "Hello")
    second = desk.run(_attempt())
    first.close()
    reader = Background(lambda: _text(second))
    engine.generations[0].put(Delta(0, " you"))
    engine.generations[0].put(done())
    assert reader.wait() == "Hello you"
    assert desk.num_runs == 1
    assert engine.cancelled == []


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
    runs = [desk.run(_attempt(again=False)), desk.run(_attempt())]
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
    run = desk.run(_attempt())
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
    runs = [desk.run(_attempt(again=False)), desk.run(_attempt())]
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
    first = desk.run(_attempt(again=False))
    assert next(first) == Delta(0, "Hello")
    second = desk.run(_attempt())
    pushed: list[Piece] = []
    second.push_to(lambda: True, pushed.append)
    generation = engine.generations[0]
    generation.put(Delta(0, " you"))
    assert list(map(next, [second, second])) == [Delta(0, "Hello"), Delta(0, " you")]
    assert pushed == []
    generation.put(done())
    for run in (first, second):
        run.close()


def test_run_ends_when_nobody_reads_it_any_more(desk: Desk) -> None:
    """A client that goes away and will not come again frees its place."""
    engine = desk.service.engine
    engine.script = begins("Hello")
    run = desk.run(_attempt(again=False))
    run.close()
    until(lambda: engine.cancelled)
    until(lambda: is_free(desk.service))


def test_client_that_gave_up_after_its_time_is_waited_for(desk: Desk) -> None:
    """Its retry comes within seconds: the answer is made on for it."""
    engine = desk.service.engine
    engine.script = begins("Hello")
    given_up = Attempt(owner="ann", key="k", digest=b"d", is_retry=False, gives_up_after_s=0.0)
    desk.run(given_up).close()
    again = desk.run(Attempt(owner="ann", key="k", digest=b"d", is_retry=True))
    engine.generations[0].put(done())
    assert _text(again) == "Hello"
    assert (desk.num_runs, engine.cancelled) == (1, [])


def test_first_attempt_begins_anew(desk: Desk) -> None:
    """The same question asked twice on purpose is answered twice."""
    _text(desk.run(_attempt(again=False)))
    _text(desk.run(_attempt(again=False)))
    assert desk.num_runs == 2


def test_another_owner_never_joins(desk: Desk) -> None:
    """An answer is of the key that asked for it."""
    _text(desk.run(_attempt()))
    _text(desk.run(_attempt(owner="bob")))
    assert desk.num_runs == 2


def test_key_of_another_request_is_refused(desk: Desk) -> None:
    """One key for two different requests is a mistake that must not be answered wrongly."""
    _text(desk.run(_attempt()))
    with pytest.raises(InvalidField, match="another request"):
        desk.run(_attempt(body="something else"))


def test_error_is_raised_for_each_and_not_kept(desk: Desk) -> None:
    """What failed is tried again by the retry."""
    with pytest.raises(UnknownModel):
        desk.retries.run(
            _attempt(),
            never,
            lambda is_left: desk.service.completions.start(
                "ann", "hi", Options(model="nobody"), is_left
            ),
        )
    assert _text(desk.run(_attempt())) == "Hello you"


def test_old_answer_is_forgotten(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some minutes the same request runs again."""
    monkeypatch.setattr(retries, "KEPT_S", -1.0)
    _text(desk.run(_attempt()))
    _text(desk.run(_attempt()))
    assert desk.num_runs == 2


def test_only_so_many_answers_are_kept(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest goes first."""
    monkeypatch.setattr(retries, "MAX_KEPT", 2)
    for key in ("1", "2", "3", "3", "2", "1"):
        _text(desk.run(_attempt(key=key)))
    assert desk.num_runs == 4


@pytest.mark.usefixtures("no_poll")
def test_nothing_is_pushed_to_a_client_that_has_gone(desk: Desk) -> None:
    """The piece wakes its thread, which finds out."""
    engine = desk.service.engine
    engine.script = begins()
    gone: list[bool] = []
    run = desk.run(_attempt(), lambda: bool(gone))
    client = Listener(run)
    gone.append(True)
    generation = engine.generations[0]
    until(lambda: generation._is_awaited)
    generation.put(Delta(0, "Hello"))
    with pytest.raises(ClientGone):
        client.reader.wait()
    assert client.pushed == []
    generation.put(done())


def test_reader_whose_client_goes_away_stops(desk: Desk) -> None:
    """The one that is gone raises, the other one reads on."""
    engine = desk.service.engine
    engine.script = says("a")
    stays = desk.run(_attempt(again=False))
    gone = desk.run(_attempt(), lambda: True)
    with pytest.raises(ClientGone):
        next(gone)
    assert _text(stays) == "a"
