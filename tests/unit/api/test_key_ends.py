"""Requests whose key is revoked or expires while they wait or are answered."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from llmd.auth import gate
from tests.support.answers import is_free
from tests.support.fake_engine import Event, begins, silent
from tests.support.service import Background, Service, until
from tests.support.sse import Stream, parse_events

CHAT = {"model": "default", "messages": [{"role": "user", "content": "hi"}]}
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("/answer", {"prompt": "hi"}),
    ("/v1/chat/completions", CHAT),
    ("/v1/completions", {"model": "default", "prompt": "hi"}),
    ("/v1/responses", {"model": "default", "input": "hi"}),
    ("/v1/embeddings", {"input": "hi"}),
    ("/tokenize", {"content": "hi"}),
]
"""Each kind of request that waits for the engine."""


def _revoke(service: Service) -> None:
    service.keys.revoke(service.user_key.id, now=int(time.time()), actor="cli")


def _expire(service: Service) -> None:
    now = int(time.time())
    service.keys.update(service.user_key.id, expires_at=now, actor="cli", now=now)


def _check_refused(service: Service, waiting: Background, ended_at: float) -> None:
    result = waiting.wait()
    assert time.monotonic() - ended_at < 1
    assert service.code(result) == (401, "invalid_api_key")
    assert result.headers["www-authenticate"]


@pytest.mark.parametrize("end", [_revoke, _expire])
@pytest.mark.parametrize(("path", "body"), REQUESTS)
def test_request_ends_with_its_key(
    service: Service, path: str, body: dict[str, Any], end: Callable[[Service], None]
) -> None:
    """A request that the engine works on is cancelled within a second, and answered with 401."""
    service.engine.script = begins("Hel")
    service.engine.reply = lambda _query: []
    waiting = Background(lambda: service.ask("POST", path, body))
    until(lambda: service.engine.generations)
    ended_at = time.monotonic()
    end(service)
    _check_refused(service, waiting, ended_at)
    until(lambda: is_free(service))
    if "tokenize" not in path:
        assert service.engine.cancelled == [service.engine.generations[0].id]


@pytest.mark.parametrize(("path", "body"), REQUESTS[:5])
def test_queued_request_ends_with_its_key(
    service: Service, path: str, body: dict[str, Any]
) -> None:
    """A request in the queue ends within a second, and never reaches the engine."""
    holders = [service.admission.enter("bob", None, lambda: False) for _ in range(2)]
    waiting = Background(lambda: service.ask("POST", path, body))
    until(lambda: service.admission.num_queued)
    ended_at = time.monotonic()
    _revoke(service)
    _check_refused(service, waiting, ended_at)
    assert service.admission.num_queued == 0
    for ticket in holders:
        ticket.release()
    assert is_free(service)
    assert service.engine.generations == []


def test_stream_ends_with_its_key(service: Service) -> None:
    """The last event of the stream is the error, and the text so far is stored."""
    service.engine.script = begins("Hel")
    stream = Stream(service, session_id="s")
    next(stream.chunks)
    next(stream.chunks)
    _revoke(service)
    [(name, data)] = parse_events(b"".join(stream.chunks))
    assert (name, data["error"]["code"]) == ("error", "invalid_api_key")
    assert "revoked" in data["error"]["message"]
    stream.body.close()
    until(lambda: is_free(service))
    [turn] = service.sessions.turns(service.user_key.id, "s")
    assert (turn.assistant, turn.finish_reason) == ("Hel", "cancelled")


def test_stream_does_not_wait_for_the_end_of_a_step(service: Service) -> None:
    """The error comes at once, though the engine cancels only after its step."""
    service.engine.script = begins("Hel")
    service.engine.on_cancel = []
    stream = Stream(service)
    next(stream.chunks)
    next(stream.chunks)
    _revoke(service)
    ended_at = time.monotonic()
    assert b"invalid_api_key" in b"".join(stream.chunks)
    assert time.monotonic() - ended_at < 1
    stream.body.close()
    assert service.admission.num_active == 1
    _finish_cancel(service)
    until(lambda: is_free(service))


def _finish_cancel(service: Service) -> None:
    """Let the engine end the first generation, as after its step."""
    cancelled: list[Event] = begins("lo")(service.engine.requests[0])
    for event in cancelled:
        service.engine.generations[0].put(event)
    service.engine.on_cancel = type(service.engine)().on_cancel
    for event in service.engine.on_cancel:
        service.engine.generations[0].put(event)


def test_answer_that_waits_for_a_retry_ends_with_its_key(service: Service) -> None:
    """A run that goes on without a reader, for a retry of its client, ends with its key."""
    service.engine.script = silent
    gone = [False]
    waiting = Background(
        lambda: service.ask(
            "POST",
            "/v1/chat/completions",
            CHAT,
            headers={"Idempotency-Key": "k"},
            extras={"waitress.client_disconnected": lambda: gone[0]},
        )
    )
    until(lambda: service.engine.generations)
    gone[0] = True
    assert waiting.wait().status_code == 499
    assert service.engine.cancelled == []
    _revoke(service)
    until(lambda: service.engine.cancelled)
    until(lambda: is_free(service))


def test_other_keys_go_on(service: Service) -> None:
    """The end of one key does not end the requests of another."""
    service.engine.script = begins("Hel")
    stream = Stream(service)
    next(stream.chunks)
    service.keys.revoke(service.other_key.id, now=int(time.time()), actor="cli")
    time.sleep(2 * gate.RECHECK_INTERVAL_S)
    assert b"Hel" in next(stream.chunks)
    stream.body.close()
    assert is_free(service)
