"""`/answer` when it is refused, fails, or loses its client."""

from __future__ import annotations

import logging

import pytest

from llmd.engine.protocol import Refused
from llmd.errors import EngineDied, EngineLoading
from tests.support.answers import is_free
from tests.support.fake_engine import begins, silent
from tests.support.service import Service
from tests.support.sse import Stream, parse_events


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", (400, "malformed_body")),
        (b"{", (400, "malformed_body")),
        ({"prompt": ""}, (422, "invalid_field")),
        ({"prompt": "x", "extra": 1}, (422, "invalid_field")),
        ({"prompt": "x", "temperature": 3}, (422, "invalid_field")),
        ({"prompt": "x", "session_id": "a b"}, (422, "invalid_field")),
        ({"prompt": "x", "profile": "none"}, (404, "profile_not_found")),
        ({"prompt": "x", "profile": "big"}, (409, "conflict")),
    ],
)
def test_a_refused_request_has_its_status(
    service: Service, body: object, code: tuple[int, str], stream: bool
) -> None:
    """A request that is not valid gets its status before the first byte, streamed or whole."""
    service.put_profile("big", model="big.gguf")
    sent = body | {"stream": stream} if isinstance(body, dict) else body
    result = service.ask("POST", "/answer", sent)
    assert service.code(result) == code
    assert service.engine.requests == []
    assert is_free(service)


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_by_the_engine_has_its_status(service: Service, stream: bool) -> None:
    """A refusal by the engine gets its status, if it comes before the first token."""
    body = {"prompt": "x", "stream": stream, "session_id": 1}
    service.engine.not_ready = EngineLoading("loading", retry_after_s=2)
    assert service.code(service.ask("POST", "/answer", body)) == (503, "model_loading")
    service.engine.not_ready = None
    too_long = Refused(id=0, message="long", num_prompt_tokens=99, num_context_tokens=64)
    service.engine.script = lambda _request: [too_long]
    assert service.code(service.ask("POST", "/answer", body)) == (400, "context_length_exceeded")
    service.engine.script = lambda _request: [EngineDied("it ended")]
    result = service.ask("POST", "/answer", body)
    assert service.code(result) == (503, "engine_died")
    assert result.headers["retry-after"]
    service.admission.drain()
    assert service.code(service.ask("POST", "/answer", body)) == (503, "draining")
    assert service.sessions.count() == 0
    assert is_free(service)


def test_a_whole_answer_whose_worker_dies_is_an_error(service: Service) -> None:
    """A whole answer whose worker dies is an error, and no turn is stored."""
    service.engine.script = begins("Hel", then=[EngineDied("it ended")])
    result = service.ask("POST", "/answer", {"prompt": "hi", "session_id": 1})
    assert service.code(result) == (503, "engine_died")
    assert service.sessions.count() == 0


def test_a_stream_whose_worker_dies_ends_in_an_error_event(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """A stream whose worker dies ends with `error` instead of `done`. The log has a 503."""
    caplog.set_level(logging.INFO)
    service.engine.script = begins("Hel", then=[EngineDied("it ended")])
    result = service.ask("POST", "/answer", {"prompt": "hi", "stream": True})
    assert result.status_code == 200
    assert parse_events(result.content) == [
        ("token", {"text": "Hel"}),
        (
            "error",
            {
                "error": {
                    "message": "it ended",
                    "type": "server_error",
                    "param": None,
                    "code": "engine_died",
                },
                "message": "it ended",
            },
        ),
    ]
    [line] = [at.getMessage() for at in caplog.records if at.name == "llmd.request"]
    assert line.startswith("POST /answer 503 ")
    assert is_free(service)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_cannot_be_stored_is_an_error(service: Service, stream: bool) -> None:
    """An answer whose turn cannot be stored is an error, streamed or whole."""
    service.ask("GET", "/auth")
    service.db.is_full = True
    body = {"prompt": "hi", "session_id": 1, "stream": stream}
    result = service.ask("POST", "/answer", body)
    if stream:
        name, data = parse_events(result.content)[-1]
        assert (name, data["error"]["code"]) == ("error", "store_full")
    else:
        assert service.code(result) == (507, "store_full")
    assert is_free(service)


def test_an_unexpected_exception_in_a_stream_is_an_internal_error(
    service: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected exception ends a stream with an internal error. The log has the details."""

    def fail(*_args: object, **_options: object) -> None:
        raise RuntimeError("at 0x7f")

    monkeypatch.setattr(service.sessions, "append", fail)
    result = service.ask("POST", "/answer", {"prompt": "hi", "session_id": 1, "stream": True})
    name, data = parse_events(result.content)[-1]
    assert (name, data["error"]["code"]) == ("error", "internal_error")
    assert "0x7f" not in result.text
    assert "at 0x7f" in caplog.text
    assert is_free(service)


@pytest.mark.parametrize("num_read", [0, 1, 2])
def test_a_stream_that_is_closed_early_is_cancelled(
    service: Service, caplog: pytest.LogCaptureFixture, num_read: int
) -> None:
    """A stream that is closed early is cancelled, and the text so far is stored.

    The server closes it when its client has gone, even before the first chunk.
    """
    caplog.set_level(logging.INFO)
    service.engine.script = begins("Hel")
    stream = Stream(service, session_id="s")
    for _ in range(num_read):
        next(stream.chunks)
    stream.body.close()
    stream.body.close()
    assert len(service.engine.cancelled) == 1
    assert is_free(service)
    [turn] = service.sessions.turns(service.user_key.id, "s")
    assert (turn.assistant, turn.finish_reason) == ("Hel", "cancelled")
    [line] = [at.getMessage() for at in caplog.records if at.name == "llmd.request"]
    assert line.startswith("POST /answer 499 ")
    assert "prompt=11 cached=4 completion=1 queue=1 prefill=20 decode=30" in line


def test_a_client_that_is_gone_ends_its_stream(service: Service) -> None:
    """A stream whose client has gone ends without another event."""
    service.engine.script = begins("Hel")
    stream = Stream(service, session_id="s")
    next(stream.chunks)
    next(stream.chunks)
    stream.is_gone = True
    assert list(stream.chunks) == []
    stream.body.close()
    assert len(service.engine.cancelled) == 1
    assert service.sessions.turns(service.user_key.id, "s")[0].finish_reason == "cancelled"
    assert is_free(service)


def test_a_client_that_is_gone_before_the_first_token_is_logged_as_gone(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that goes before the first token is logged with the status 499."""
    caplog.set_level(logging.INFO)
    service.engine.script = silent
    extras = {"waitress.client_disconnected": lambda: True}
    result = service.ask("POST", "/answer", {"prompt": "hi"}, extras=extras)
    assert result.status_code == 499
    [line] = [at.getMessage() for at in caplog.records if at.name == "llmd.request"]
    assert line.startswith("POST /answer 499 ")
    assert is_free(service)
