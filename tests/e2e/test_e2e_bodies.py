"""Hostile bodies are refused with a message, and have no other effect."""

from __future__ import annotations

import json

import pytest

from tests.e2e.daemon import Daemon

pytestmark = pytest.mark.e2e


def _field(name: str, value: object) -> bytes:
    return json.dumps({"prompt": "hi", name: value}).encode()


BODIES = {
    "empty": b"",
    "white space": b" \r\n\t ",
    "not JSON": b"prompt=hi",
    "half an object": b'{"prompt": "hi"',
    "two values": b'{"prompt": "hi"} {}',
    "byte order mark": b'\xef\xbb\xbf{"prompt": "hi"}',
    "NaN": b'{"prompt": "hi", "temperature": NaN}',
    "infinity": b'{"prompt": "hi", "temperature": -Infinity}',
    "1e400": b'{"prompt": "hi", "temperature": 1e400}',
    "field twice": b'{"prompt": "hi", "prompt": "ho"}',
    "deep list": b"[" * 100_000,
    "deep value": b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "invalid UTF-8": b'{"prompt": "\xff\xfe"}',
    "overlong UTF-8": b'{"prompt": "\xc0\xaf"}',
    "UTF-16": '{"prompt": "hi"}'.encode("utf-16"),
    "lone surrogate": b'{"prompt": "\\ud800"}',
    "surrogate as bytes": b'{"prompt": "\xed\xa0\x80"}',
    "5,000 digits": b'{"prompt": "hi", "seed": ' + b"9" * 5000 + b"}",
    "5,000 digits of a fraction": b'{"prompt": "hi", "top_p": 1.' + b"9" * 5000 + b"}",
    "NUL escaped": b'{"prompt": "a\\u0000b"}',
    "NUL as a byte": b'{"prompt": "a\x00b"}',
    "array": b"[]",
    "number": b"1",
    "null": b"null",
    "string": b'"hi"',
    "no prompt": b"{}",
    "empty prompt": b'{"prompt": ""}',
    "blank prompt": b'{"prompt": " \\n "}',
    "prompt null": b'{"prompt": null}',
    "prompt list": b'{"prompt": ["hi"]}',
    "prompt number": b'{"prompt": 1}',
    "unknown field": _field("logit_bias", {"1": 100}),
    "internal field": _field("owner", "admin"),
    "stream text": _field("stream", "yes"),
    "stream number": _field("stream", 1),
    "max_tokens 0": _field("max_tokens", 0),
    "max_tokens negative": _field("max_tokens", -1),
    "max_tokens huge": _field("max_tokens", 10**12),
    "max_tokens beyond 64 bits": _field("max_tokens", 2**63),
    "max_tokens fraction": _field("max_tokens", 1.5),
    "max_tokens text": _field("max_tokens", "5"),
    "temperature negative": _field("temperature", -0.1),
    "temperature high": _field("temperature", 2.1),
    "top_p 0": _field("top_p", 0),
    "top_p high": _field("top_p", 1.1),
    "top_k negative": _field("top_k", -1),
    "min_p high": _field("min_p", 2),
    "repeat_penalty 0": _field("repeat_penalty", 0),
    "seed negative": _field("seed", -1),
    "seed beyond 32 bits": _field("seed", 2**32),
    "stop empty": _field("stop", [""]),
    "stop many": _field("stop", ["x"] * 9),
    "stop long": _field("stop", ["x" * 129]),
    "stop number": _field("stop", 5),
    "session path": _field("session_id", "../../etc/passwd"),
    "session negative": _field("session_id", -1),
    "session fraction": _field("session_id", 1.5),
    "session true": _field("session_id", True),
    "session empty": _field("session_id", ""),
    "session long": _field("session_id", "x" * 65),
    "session huge number": b'{"prompt": "hi", "session_id": ' + b"9" * 100 + b"}",
    "session SQL": _field("session_id", "1' OR '1'='1"),
    "unknown profile": _field("profile", "nobody"),
    "profile path": _field("profile", "../default"),
    "3 MB": json.dumps({"prompt": "hello " * 500_000}).encode(),
    "60,000 words": json.dumps({"prompt": "hello " * 60_000}).encode(),
    "one long word": json.dumps({"prompt": "x" * 200_000}).encode(),
}


@pytest.mark.parametrize("body", [pytest.param(raw, id=name) for name, raw in BODIES.items()])
def test_a_hostile_body_is_refused_with_a_message(daemon: Daemon, body: bytes) -> None:
    """A hostile body gets a 4xx error in the usual format, and the worker survives."""
    worker = daemon.worker_pid()
    reply = daemon.client.send("POST", "/answer", body)
    assert 400 <= reply.status < 500, reply
    assert reply.status in {400, 404, 413, 422}, reply
    error = reply.body["error"]
    assert error["message"] == reply.body["message"]
    assert len(error["message"]) > 10
    assert len(error["message"]) < 500
    assert error["code"]
    assert reply.headers["x-request-id"]
    assert daemon.worker_pid() == worker


def test_the_daemon_answers_after_all_of_them(daemon: Daemon) -> None:
    """The daemon answers after all hostile bodies in a row."""
    worker = daemon.worker_pid()
    statuses = [daemon.client.send("POST", "/answer", raw).status for raw in BODIES.values()]
    assert all(400 <= status < 500 for status in statuses)
    assert daemon.client.ask("Say hello.", max_tokens=2)["result"]
    assert daemon.worker_pid() == worker
    assert daemon.client.get("/status").body["restarts"] == 0
    assert daemon.streams()["active"] == 0


def test_a_prompt_of_the_size_of_the_context_is_served_or_refused(daemon: Daemon) -> None:
    """A prompt that just fits is answered; one token more gets a clear error."""
    daemon.put_profile("edge", template="{input}", temperature=0)
    fixed = daemon.client.ask("a", profile="edge", max_tokens=1)["usage"]["prompt_tokens"]
    statuses = []
    for num_tokens in range(1021, 1027):
        prompt = "a" + " a" * (num_tokens - fixed)
        body = {"prompt": prompt, "profile": "edge", "max_tokens": 8}
        reply = daemon.client.call("POST", "/answer", body)
        statuses.append(reply.status)
        if reply.status == 200:
            assert reply.body["usage"]["prompt_tokens"] == num_tokens
            assert reply.body["usage"]["total_tokens"] <= 1024 + 1
        else:
            assert reply.code == "context_length_exceeded"
            assert reply.body["error"]["n_ctx"] == 1024
            assert reply.body["error"]["n_prompt_tokens"] == num_tokens
    assert statuses == [200, 200, 200, 400, 400, 400]
