"""Requests that the HTTP server refuses, and the form of its errors."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from tests.support.echo_server import Running
from tests.support.service import until


@dataclass
class Reply:
    status: str
    headers: dict[str, str]
    body: Any


def read(client: socket.socket) -> Reply:
    """Read a response from a connection that the server closes after it."""
    raw = b""
    with client:
        while chunk := client.recv(65536):
            raw += chunk
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    assert int(headers["content-length"]) == len(body)
    return Reply(first.partition(" ")[2], headers, msgspec.json.decode(body) if body else None)


def code(reply: Reply) -> str:
    """Check the form of an error and return its code."""
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"]
    assert reply.headers["connection"] == "close"
    error = reply.body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] == reply.body["message"]
    return str(error["code"])


def test_a_request_that_comes_too_slowly_is_refused(running: Running) -> None:
    """A head or a body that is not complete in time is answered with 408.

    Sending a byte now and then does not extend the deadline. A silent connection is closed.
    """
    silent = running.connect(b"")
    head = running.connect(b"POST / HTTP/1.1\r\nHost: x\r\n")
    body = running.connect(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
    drip = running.connect(b"GET / HT")
    drip.settimeout(0.05)
    dripped = b""
    while not dripped:
        drip.sendall(b"T")
        try:
            dripped = drip.recv(1)
        except TimeoutError:
            continue
    assert dripped == b"H"
    drip.close()
    reply = read(head)
    assert (reply.status, code(reply)) == ("408 Request Timeout", "request_timeout")
    assert "head did not arrive within 0.5 s" in reply.body["message"]
    reply = read(body)
    assert (reply.status, code(reply)) == ("408 Request Timeout", "request_timeout")
    assert "body did not arrive within 0.5 s" in reply.body["message"]
    assert silent.recv(1) == b""


def test_a_length_of_thousands_of_digits_is_a_bad_request(running: Running) -> None:
    """A Content-Length that Python cannot parse gets a 400 response, not a traceback."""
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {'9' * 5000}\r\n\r\n"
    reply = read(running.connect(head.encode()))
    assert (reply.status[:3], code(reply)) == ("400", "bad_request")


def test_a_body_of_the_largest_size_is_read_and_one_byte_more_is_not(running: Running) -> None:
    """A body above the limit gets a 413 before it is sent. Chunks count with their framing."""
    request = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    length = f"{request}Content-Length: 1024\r\n\r\n".encode()
    assert read(running.connect(length + b"x" * 1024)).body == {"length": 1024}
    reply = read(running.connect(f"{request}Content-Length: 1025\r\n\r\n".encode()))
    assert (reply.status[:3], code(reply)) == ("413", "body_too_large")
    chunked = f"{request}Transfer-Encoding: chunked\r\n\r\n".encode()
    one = b"3e8\r\n" + b"x" * 1000 + b"\r\n"
    assert read(running.connect(chunked + one + b"0\r\n\r\n")).body == {"length": 1000}
    reply = read(running.connect(chunked + one + one + b"0\r\n\r\n"))
    assert (reply.status[:3], code(reply)) == ("413", "body_too_large")


def test_a_client_that_sends_on_reads_why_it_was_refused(running: Running) -> None:
    """A refused client that is still sending can read the error before the connection closes."""
    length = 20_000_000
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
    reply = read(running.connect(head.encode() + b"x" * length))
    assert (reply.status[:3], code(reply)) == ("413", "body_too_large")


def test_a_client_that_sends_on_forever_is_cut(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused connection is closed after a while, even if the client never closes it."""
    monkeypatch.setattr("llmd.daemon.channel.LINGER_S", 0.0)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    with running.connect(head) as client:
        while client.recv(65536):
            pass

        def is_cut() -> bool:
            try:
                client.sendall(b"x")
            except OSError:
                return True
            return False

        until(is_cut)


@pytest.mark.parametrize(
    "raw",
    [
        b"hello\r\n\r\n",
        b"GET /\x00 HTTP/1.1 x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
    ],
)
def test_a_request_that_is_not_http_is_refused_in_the_form_of_every_error(
    running: Running, raw: bytes
) -> None:
    """A malformed request gets a 400, and the connection is closed."""
    reply = read(running.connect(raw))
    assert (reply.status[:3], code(reply)) == ("400", "bad_request")


def test_an_unknown_transfer_coding_and_a_huge_head_are_refused(running: Running) -> None:
    """An unknown transfer coding gets a 501, a head that is too large a 431."""
    reply = read(running.connect(b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n"))
    assert (reply.status[:3], code(reply)) == ("501", "not_implemented")
    reply = read(running.connect(b"GET / HTTP/1.1\r\nX: " + b"x" * 262_144))
    assert (reply.status[:3], code(reply)) == ("431", "header_too_large")


def test_a_failure_outside_every_handler_is_reported_without_details(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected exception gets a 500 without its message. The log has the traceback."""
    reply = read(running.connect(b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert (reply.status[:3], code(reply)) == ("500", "internal_error")
    assert reply.body["error"]["type"] == "server_error"
    assert "0x7f" not in reply.body["message"]
    assert "at 0x7f" in caplog.text
