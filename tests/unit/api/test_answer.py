"""`/answer`: whole answers, streams, and the list of sessions."""

from __future__ import annotations

import pytest

from llmd.engine.protocol import Delta
from llmd.store.sessions import NewTurn
from tests.support.answers import is_free
from tests.support.fake_engine import begins, done
from tests.support.service import Service
from tests.support.sse import Stream, parse_events


def test_a_whole_answer_has_every_field_of_the_contract(service: Service) -> None:
    """A whole answer has `result` for the seed's clients, and every other field of the contract."""
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
        "timings": {
            "queue_ms": 1.0,
            "prefill_ms": 20.0,
            "decode_ms": 30.0,
            "drafted_tokens": 0,
            "accepted_tokens": 0,
        },
    }
    assert is_free(service)


def test_an_answer_without_a_session_names_none(service: Service) -> None:
    """Without a session `session_id` is null and nothing is stored."""
    assert service.ask("POST", "/answer", {"prompt": "hi"}).json["session_id"] is None
    assert service.sessions.count() == 0


def test_every_optional_field_reaches_the_engine(service: Service) -> None:
    """Every optional field of the body is passed to the engine."""
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
    """A stream has `token` events, then `done` with the same body as a whole answer."""
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
    """A stream begins with a comment, to send the headers, and has one line of data per event."""
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
    """Each token is sent before the next one is generated."""
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
    """The turn is stored before `done` is sent."""
    stream = Stream(service, session_id="s")
    while b"event: done" not in next(stream.chunks):
        assert service.sessions.count() == 0
    [turn] = service.sessions.turns(service.user_key.id, "s")
    assert turn.assistant == "Hello you"
    stream.body.close()


def test_a_silent_stream_is_pinged(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream without a new token sends a ping, because proxies close silent connections."""
    monkeypatch.setattr("llmd.chat.run.POLL_S", 0.001)
    monkeypatch.setattr("llmd.api.stream.PING_AFTER_S", 0.0)
    service.engine.script = begins("one")
    stream = Stream(service)
    assert next(stream.chunks) == b": ping\n\n"
    assert b"one" in next(stream.chunks)
    assert next(stream.chunks) == b": ping\n\n"
    stream.body.close()


def test_an_answer_without_a_session_needs_no_room_in_the_store(service: Service) -> None:
    """An answer without a session is given even if the store is full."""
    service.db.is_full = True
    assert service.ask("POST", "/answer", {"prompt": "hi"}).status_code == 200


def test_the_callers_sessions_are_listed_by_id_as_the_seed_did(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names of all sessions of the caller are listed by id, over several pages."""
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
