"""The line that the daemon logs for each request."""

from __future__ import annotations

import logging

import pytest

from tests.support.service import Service


def request_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines of the request log."""
    return [record.getMessage() for record in caplog.records if record.name == "llmd.request"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_is_one_line_with_its_tokens_and_without_its_text(
    service: Service, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    """A request is logged with its key id, tokens and times, never with a text or a key."""
    caplog.set_level(logging.DEBUG)
    body = {"prompt": "my secret question", "stream": stream, "session_id": 3}
    service.ask("POST", "/answer", body, params={"token": service.user})
    [line] = request_lines(caplog)
    assert line.startswith("POST /answer 200 ")
    assert line.endswith(
        f"ms key={service.user_key.id} prompt=11 cached=4 completion=2 queue=1 prefill=20 decode=30"
    )
    for text in ("secret question", "Hello", service.user, service.user.split("_")[2]):
        assert text not in caplog.text


def test_a_refused_request_is_one_line_too(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """A refused request is logged with its status, without the key that was refused."""
    caplog.set_level(logging.DEBUG)
    service.ask("GET", "/keys")
    service.ask("GET", "/keys", key="not-a-key-but-secret")
    service.ask("GET", "/none", key="")
    assert [line.split()[:3] for line in request_lines(caplog)] == [
        ["GET", "/keys", "403"],
        ["GET", "/keys", "401"],
        ["GET", "/none", "404"],
    ]
    assert "not-a-key" not in caplog.text
