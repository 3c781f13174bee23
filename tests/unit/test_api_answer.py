"""`/answer`: whole, as a stream, and the list of sessions."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from falcon import testing

from llmd.engine.protocol import Delta, Refused
from llmd.errors import EngineDied, EngineLoading
from llmd.store.sessions import NewTurn
from tests.fake_engine import begins, done, silent
from tests.service import Service

Events = list[tuple[str, Any]]


def parse_events(raw: bytes) -> Events:
    """Return the events of a stream; comments are left out."""
    assert raw.endswith(b"\n\n")
    events: Events = []
    for block in raw.decode().removesuffix("\n\n").split("\n\n"):
        if block.startswith(":"):
            continue
        name, data = block.split("\n")
        assert name.startswith("event: ")
        assert data.startswith("data: ")
        events.append((name.removeprefix("event: "), msgspec.json.decode(data[6:])))
    return events


class Stream:
    """A stream that is read chunk by chunk, as the HTTP server does."""

    def __init__(self, service: Service, **fields: Any) -> None:
        self.is_gone = False
        self._response = testing.StartResponseMock()
        body = msgspec.json.encode({"prompt": "hi", "stream": True} | fields)
        headers = {"Authorization": service.user}
        environ = testing.create_environ("/answer", method="POST", body=body, headers=headers)
        environ["waitress.client_disconnected"] = lambda: self.is_gone
        self.body: Any = service.app(environ, self._response)
        self.chunks: Iterator[bytes] = iter(self.body)

    @property
    def status(self) -> str | None:
        """The status line, sent before any chunk."""
        return self._response.status

    @property
    def headers(self) -> dict[str, str]:
        """The headers, sent before any chunk."""
        headers: dict[str, str] = self._response.headers_dict
        return headers


def is_free(service: Service) -> bool:
    """Tell whether every place was given back."""
    return (service.admission.num_active, service.admission.num_queued) == (0, 0)


def test_a_whole_answer_has_every_field_of_the_contract(service: Service) -> None:
    """`result` is what the seed's clients read; the rest is beside it."""
    result = service.ask("POST", "/answer", {"prompt": "hi", "session_id": 1, "seed": 5})
    assert result.status_code == 200
    assert result.headers["content-type"] == "application/json"
    assert result.json == {
        "result": "Hello you",
        "session_id": "1",
        "profile": "default",
        "model": "tiny.gguf",
        "usage": {
            "prompt_tokens": 11,
            "completion_tokens": 2,
            "total_tokens": 13,
            "prompt_tokens_details": {"cached_tokens": 4},
        },
        "finish_reason": "stop",
        "turns_in_prompt": 0,
        "seed": 5,
        "timings": {"queue_ms": 1.0, "prefill_ms": 20.0, "decode_ms": 30.0},
    }
    assert is_free(service)


def test_an_answer_without_a_session_names_none(service: Service) -> None:
    """`session_id` is null, and nothing is stored."""
    assert service.ask("POST", "/answer", {"prompt": "hi"}).json["session_id"] is None
    assert service.sessions.count() == 0


def test_every_optional_field_reaches_the_engine(service: Service) -> None:
    """By the names of the contract."""
    service.put_profile("p")
    fields = {
        "profile": "p",
        "max_tokens": 3,
        "temperature": 0,
        "top_p": 0.5,
        "top_k": 2,
        "min_p": 0.25,
        "repeat_penalty": 1.5,
        "seed": 9,
        "stop": ["END"],
    }
    result = service.ask("POST", "/answer", {"prompt": "hi"} | fields)
    assert result.json["profile"] == "p"
    [request] = service.engine.requests
    sampling = request.sampling
    assert (request.max_tokens, request.stop) == (3, ["END"])
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0, 0.5, 2)
    assert (sampling.min_p, sampling.repeat_penalty, sampling.seed) == (0.25, 1.5, 9)


def test_a_streamed_answer_is_the_same_in_pieces(service: Service) -> None:
    """`token` events, then `done` with the very body of the whole answer."""
    body = {"prompt": "hi", "session_id": "s", "seed": 5}
    streamed = service.ask("POST", "/answer", body | {"stream": True})
    assert streamed.status_code == 200
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert streamed.headers["cache-control"] == "no-store"
    assert streamed.headers["x-accel-buffering"] == "no"
    assert "content-length" not in streamed.headers
    *tokens, (name, last) = parse_events(streamed.content)
    assert tokens == [("token", {"text": "Hello"}), ("token", {"text": " you"})]
    assert name == "done"
    whole = service.ask("POST", "/answer", body).json
    assert last == whole | {"turns_in_prompt": 0}
    assert is_free(service)


def test_the_bytes_of_a_stream_are_those_of_the_contract(service: Service) -> None:
    """A comment first, so that the headers go out at once; one line of data an event."""
    service.engine.script = begins("a\nb é", then=[done()])
    stream = Stream(service)
    assert stream.status == "200 OK"
    assert stream.headers["x-request-id"]
    assert next(stream.chunks) == b": ping\n\n"
    assert next(stream.chunks) == 'event: token\ndata: {"text":"a\\nb é"}\n\n'.encode()
    assert next(stream.chunks).startswith(b'event: done\ndata: {"result":"a\\nb')
    assert list(stream.chunks) == []
    stream.body.close()
    assert is_free(service)


def test_each_token_is_sent_before_the_next_is_there(service: Service) -> None:
    """Nothing waits for the end of the answer."""
    service.engine.script = begins("one")
    stream = Stream(service)
    assert next(stream.chunks) == b": ping\n\n"
    assert b"one" in next(stream.chunks)
    service.engine.generations[0].put(Delta(0, "two"))
    assert b"two" in next(stream.chunks)
    service.engine.generations[0].put(done())
    assert b"event: done" in next(stream.chunks)
    stream.body.close()


def test_the_turn_is_stored_before_the_event_of_the_end(service: Service) -> None:
    """Whoever reads `done` can rely on the turn."""
    stream = Stream(service, session_id="s")
    while b"event: done" not in next(stream.chunks):
        assert service.sessions.count() == 0
    [turn] = service.sessions.turns(service.user_key.id, "s")
    assert turn.assistant == "Hello you"
    stream.body.close()


def test_a_silent_stream_is_pinged(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies close what says nothing."""
    monkeypatch.setattr("llmd.chat.answer.POLL_S", 0.001)
    monkeypatch.setattr("llmd.api.stream.PING_AFTER_S", 0.0)
    service.engine.script = begins("one")
    stream = Stream(service)
    assert next(stream.chunks) == b": ping\n\n"
    assert b"one" in next(stream.chunks)
    assert next(stream.chunks) == b": ping\n\n"
    stream.body.close()


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
def test_what_can_be_refused_has_its_status(
    service: Service, body: object, code: tuple[int, str], stream: bool
) -> None:
    """Before the first byte, of a stream as of a whole answer."""
    service.put_profile("big", model="big.gguf")
    sent = body | {"stream": stream} if isinstance(body, dict) else body
    result = service.ask("POST", "/answer", sent)
    assert service.code(result) == code
    assert service.engine.requests == []
    assert is_free(service)


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_engine_refuses_has_its_status(service: Service, stream: bool) -> None:
    """A model that loads, a prompt that is too long, a worker that dies before the first token."""
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
    """Half an answer is no answer."""
    service.engine.script = begins("Hel", then=[EngineDied("it ended")])
    result = service.ask("POST", "/answer", {"prompt": "hi", "session_id": 1})
    assert service.code(result) == (503, "engine_died")
    assert service.sessions.count() == 0


def test_a_stream_whose_worker_dies_ends_in_an_error_event(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """With the one error body, and without `done`; the log has the status it would have had."""
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
    """It is never acknowledged."""
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


def test_an_answer_without_a_session_needs_no_room_in_the_store(service: Service) -> None:
    """A full disk stops the sessions, not the server."""
    service.db.is_full = True
    assert service.ask("POST", "/answer", {"prompt": "hi"}).status_code == 200


def test_a_stream_that_fails_in_an_unforeseen_way_says_no_more_than_that(
    service: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error event, and the traceback in the log."""

    def fail(*_args: object) -> None:
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
    """The server closes it when its client has gone, even before the first chunk.

    What was made so far is kept, whether or not it was sent.
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
    assert line.endswith("prompt=11 cached=4 completion=1")


def test_a_client_that_is_gone_ends_its_stream(service: Service) -> None:
    """Without a further event: nobody reads it."""
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
    """By the number that nginx has for it."""
    caplog.set_level(logging.INFO)
    service.engine.script = silent
    extras = {"waitress.client_disconnected": lambda: True}
    result = service.ask("POST", "/answer", {"prompt": "hi"}, extras=extras)
    assert result.status_code == 499
    [line] = [at.getMessage() for at in caplog.records if at.name == "llmd.request"]
    assert line.startswith("POST /answer 499 ")
    assert is_free(service)


def test_the_callers_sessions_are_listed_by_id_as_the_seed_did(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Id → the head of the first prompt, over as many pages as there are; no other key's."""
    monkeypatch.setattr("llmd.api.answer.MAX_LISTED", 2)
    assert service.ask("GET", "/answer").json == {}
    for number in range(1, 6):
        turn = NewTurn(user=f"question {number} " + "x" * 40, assistant="a", created_at=0)
        service.sessions.append(service.user_key.id, number, turn)
    service.sessions.append(
        service.other_key.id, 9, NewTurn(user="other", assistant="a", created_at=0)
    )
    listed = service.ask("GET", "/answer").json
    assert listed == {str(number): f"question {number} " + "x" * 19 for number in range(1, 6)}
    assert list(listed) == ["1", "2", "3", "4", "5"]
