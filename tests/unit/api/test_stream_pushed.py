"""Streams whose text is sent by the thread that receives it from the worker."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from llmd.api.stream import PING_AFTER_S
from llmd.engine.protocol import Delta, Reasoning
from tests.support.answers import is_free, turns
from tests.support.fake_engine import begins, done
from tests.support.service import Background, Service, until
from tests.support.sse import Stream, parse_events


class FakeOutlet:
    """An outlet that keeps the bytes written to it."""

    def __init__(self) -> None:
        self.sent = b""
        self.is_open = True

    def is_ready(self) -> bool:
        return self.is_open

    def write(self, events: bytes) -> None:
        self.sent += events


class Pushed:
    """A stream whose own thread waits for the end, as it does most of the time."""

    def __init__(self, service: Service) -> None:
        service.engine.script = begins()
        self.outlet = FakeOutlet()
        self.stream = Stream(service, self.outlet, session_id="1")
        assert next(self.stream.chunks) == b": ping\n\n"
        [self.generation] = service.engine.generations
        self.reader = Background(lambda: next(self.stream.chunks))
        until(lambda: self.generation._is_awaited)


@pytest.fixture
def pushed(service: Service, monkeypatch: pytest.MonkeyPatch) -> Pushed:
    """Provide a stream that waits without polling."""
    monkeypatch.setattr("llmd.chat.run.POLL_S", 20)
    monkeypatch.setattr("llmd.chat.run.PUSHED_POLL_S", 20)
    return Pushed(service)


def test_text_is_sent_where_it_arrives_and_is_all_in_the_turn(
    service: Service, pushed: Pushed
) -> None:
    """Text is sent by the receiving thread. The connection's thread wakes only for the end."""
    for text in ("Hello", " you"):
        pushed.generation.put(Delta(0, text))
    tokens = [("token", {"text": "Hello"}), ("token", {"text": " you"})]
    assert parse_events(pushed.outlet.sent) == tokens
    assert pushed.reader.is_running
    pushed.generation.put(done())
    [(name, result)] = parse_events(pushed.reader.wait())
    assert (name, result["result"]) == ("done", "Hello you")
    pushed.stream.body.close()
    assert [turn.assistant for turn in turns(service)] == ["Hello you"]
    assert is_free(service)


def test_a_client_that_does_not_read_is_waited_for_by_its_own_thread(pushed: Pushed) -> None:
    """Text that the client cannot take yet is sent in order by the thread of its connection."""
    pushed.generation.put(Delta(0, "one"))
    pushed.outlet.is_open = False
    pushed.generation.put(Delta(0, "two"))
    assert b"two" in pushed.reader.wait()
    assert b"two" not in pushed.outlet.sent
    pushed.generation.put(done())
    assert b"event: done" in next(pushed.stream.chunks)
    pushed.stream.body.close()


def test_nothing_is_sent_to_a_client_that_has_gone(service: Service, pushed: Pushed) -> None:
    """A client that has gone is sent nothing. The turn has all text until the cancellation."""
    pushed.generation.put(Delta(0, "one"))
    service.engine.on_cancel = []
    pushed.stream.is_gone = True
    pushed.generation.put(Delta(0, " two"))
    assert b"two" in pushed.reader.wait()
    rest = Background(lambda: list(pushed.stream.chunks))
    until(lambda: service.engine.cancelled and pushed.generation._is_awaited)
    pushed.generation.put(Delta(0, " three"))
    pushed.generation.put(done("cancelled"))
    assert rest.wait() == []
    pushed.stream.body.close()
    assert parse_events(pushed.outlet.sent) == [("token", {"text": "one"})]
    assert [turn.assistant for turn in turns(service)] == ["one two three"]
    assert is_free(service)


def test_a_client_that_leaves_before_the_first_text_is_noticed_at_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread polls for a lost client until text is pushed: prefill can take a minute."""
    monkeypatch.setattr("llmd.chat.run.PUSHED_POLL_S", 1000)
    pushed = Pushed(service)
    pushed.stream.is_gone = True
    with pytest.raises(StopIteration):
        pushed.reader.wait()
    pushed.stream.body.close()
    assert service.engine.cancelled
    assert is_free(service)


def test_reasoning_is_not_pushed(pushed: Pushed) -> None:
    """Reasoning is not pushed."""
    pushed.generation.put(Reasoning(0, "hm"))
    pushed.generation.put(Delta(0, "one"))
    assert parse_events(pushed.outlet.sent) == [("token", {"text": "one"})]
    pushed.generation.put(done())
    assert pushed.reader.wait()
    pushed.stream.body.close()


def test_a_server_that_goes_down_cuts_a_pushed_answer_off(service: Service, pushed: Pushed) -> None:
    """When the time for draining is over, the next token ends a pushed answer with an error."""
    service.admission.expire()
    pushed.generation.put(Delta(0, "one"))
    assert b"one" in pushed.reader.wait()
    [(name, body)] = parse_events(next(pushed.stream.chunks))
    assert (name, body["error"]["code"]) == ("error", "draining")
    assert pushed.outlet.sent == b""
    pushed.stream.body.close()
    assert is_free(service)


def test_a_whole_answer_wakes_its_thread_for_the_end_alone(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread of a whole answer wakes only for the end."""
    monkeypatch.setattr("llmd.chat.run.POLL_S", 20)
    monkeypatch.setattr("llmd.chat.run.PUSHED_POLL_S", 20)
    service.engine.script = begins()
    asked = Background(lambda: service.ask("POST", "/answer", {"prompt": "hi"}))
    until(lambda: service.engine.generations and service.engine.generations[0]._listener)
    [generation] = service.engine.generations
    until(lambda: generation._is_awaited)
    monkeypatch.setattr(generation, "next", pytest.fail)
    for event in (Delta(0, "Hello"), Delta(0, " you"), done()):
        generation.put(event)
    assert asked.wait().json["result"] == "Hello you"


def test_a_fault_in_sending_ends_that_stream_alone(
    service: Service, pushed: Pushed, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure to send ends only that stream, with an internal error."""

    def fail(events: bytes) -> None:
        raise ValueError("broken")

    pushed.outlet.write = fail  # type: ignore[method-assign]
    pushed.generation.put(Delta(0, "one"))
    [(name, body)] = parse_events(pushed.reader.wait())
    assert (name, body["error"]["code"]) == ("error", "internal_error")
    pushed.stream.body.close()
    assert "a stream failed" in caplog.text
    assert is_free(service)


def test_a_push_puts_off_the_next_ping(pushed: Pushed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A push postpones the next ping."""
    began = time.monotonic()
    clock = SimpleNamespace(monotonic=lambda: began + PING_AFTER_S - 1)
    monkeypatch.setattr("llmd.api.stream.time", clock)
    pushed.generation.put(Delta(0, "one"))
    clock.monotonic = lambda: began + PING_AFTER_S + 1
    pushed.outlet.is_open = False
    pushed.generation.put(Reasoning(0, "nothing that is sent"))
    pushed.generation.put(done())
    assert b"event: done" in pushed.reader.wait()
    pushed.stream.body.close()
