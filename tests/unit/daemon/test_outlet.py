"""Responses that another thread writes to, on a real socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.support.echo_server import LeftOpen, Running
from tests.support.service import until

GET = b"GET /pushed HTTP/1.%d\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture
def pushed(running: Running) -> Iterator[LeftOpen]:
    """Give the response; it ends with the test."""
    running.pushed.outlet = None
    running.pushed.may_end.clear()
    yield running.pushed
    running.pushed.may_end.set()


def _read(client: socket.socket, last: bytes) -> bytes:
    """Return the body of a response as far as what is awaited."""
    raw = b""
    while not raw.endswith(last):
        got = client.recv(65536)
        assert got, raw
        raw += got
    return raw.partition(b"\r\n\r\n")[2]


def test_what_is_pushed_reaches_the_client_at_once(running: Running, pushed: LeftOpen) -> None:
    """As a chunk like any other, between those of the connection's own thread."""
    with running.connect(GET % 1) as client:
        until(lambda: pushed.outlet)
        assert pushed.outlet.is_ready()
        pushed.outlet.write(b"middle")
        assert _read(client, b"middle\r\n") == b"5\r\nbegin\r\n6\r\nmiddle\r\n"
        pushed.may_end.set()
        assert client.recv(65536).startswith(b"3\r\nend\r\n")


def test_a_client_of_http_1_0_gets_it_without_chunks(running: Running, pushed: LeftOpen) -> None:
    """It would take their lengths for text."""
    with running.connect(GET % 0) as client:
        until(lambda: pushed.outlet)
        pushed.outlet.write(b"middle")
        assert _read(client, b"middle") == b"beginmiddle"


def test_a_client_that_does_not_read_keeps_nobody_waiting(
    running: Running, pushed: LeftOpen
) -> None:
    """What it has not taken is sent later; until then it is not ready for more."""
    with running.connect(GET % 1) as client:
        until(lambda: pushed.outlet)
        num_written = 0
        while pushed.outlet.is_ready():
            assert num_written < 1000
            pushed.outlet.write(b"x" * 100_000)
            num_written += 1
        pushed.may_end.set()
        assert _read(client, b"\r\n0\r\n\r\n").count(b"x") == num_written * 100_000


def test_nothing_is_raised_for_a_client_that_has_gone(running: Running, pushed: LeftOpen) -> None:
    """The thread that writes has others to serve."""
    with running.connect(GET % 1) as client:
        until(lambda: pushed.outlet)
        channel = running.channel_of(client)
    until(lambda: not channel.connected)
    assert not pushed.outlet.is_ready()
    pushed.outlet.write(b"middle")
