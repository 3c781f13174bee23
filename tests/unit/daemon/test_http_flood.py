"""The HTTP server while one address takes all the connections that it can get."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.echo_server import Running
from tests.support.service import until

REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok"

FLOODS = {
    "idle": b"",
    "half of a head": b"POST / HTTP/1.1\r\nHost: x\r\n",
    "half of a body": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n" + b"x" * 400,
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """Provide a server of 6 threads and 26 connections, whose deadlines are far away."""
    monkeypatch.setattr("llmd.daemon.http._MAX_CONNECTIONS", 20)
    made = Running(header_deadline_s=300.0, body_deadline_s=300.0)
    yield made
    made.forget_clients()
    made.stop()


def ask(client: socket.socket) -> None:
    """Send a request and read the whole response."""
    client.sendall(REQUEST)
    received = b""
    while not received.endswith(b"}"):
        data = client.recv(65536)
        assert data, "the connection was closed"
        received += data
    assert received.startswith(b"HTTP/1.1 200")


def answers(running: Running, source: str) -> bool:
    """Return whether a new connection from an address is answered at once."""
    began = time.monotonic()
    with socket.create_connection(running.address, 20, (source, 0)) as client:
        client.sendall(REQUEST)
        return client.recv(65536).startswith(b"HTTP/1.1 200") and time.monotonic() - began < 5


@pytest.mark.parametrize("sent", FLOODS.values(), ids=FLOODS)
def test_a_flood_from_one_address_stops_nobody(small: Running, sent: bytes) -> None:
    """Neither another address nor a new connection of the same one has to wait for a deadline."""
    with ExitStack() as flood:
        for _ in range(60):
            client = socket.create_connection(small.address, 20, ("127.0.0.2", 0))
            flood.enter_context(client)
            client.sendall(sent)
        assert answers(small, "127.0.0.3")
        assert answers(small, "127.0.0.2")


def test_a_flood_does_not_cut_a_running_request(small: Running) -> None:
    """The connection of a request that is being answered stays open, however old it is."""
    with (
        small.connect(b"GET /stubborn HTTP/1.1\r\nHost: x\r\n\r\n") as client,
        ExitStack() as flood,
    ):
        assert small.stubborn.is_running.wait(20)
        for _ in range(60):
            flood.enter_context(small.connect(b""))
        small.stubborn.may_end.set()
        assert client.recv(65536).startswith(b"HTTP/1.1 200")


def test_the_longest_idle_connection_is_the_one_that_is_closed(small: Running) -> None:
    """A connection that has just been used outlives those that were opened before its request."""
    with small.connect(b"") as used, ExitStack() as flood:
        ask(used)
        idle = [flood.enter_context(small.connect(b"")) for _ in range(15)]
        ask(used)
        for _ in range(14):
            flood.enter_context(small.connect(b""))
        assert idle[0].recv(1) == b""
        ask(used)


class Exhausted:
    """A listening socket whose first accept() finds no free descriptor."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._has_failed = False

    def accept(self) -> tuple[socket.socket, object]:
        """Fail once, then accept."""
        if not self._has_failed:
            self._has_failed = True
            raise OSError(errno.EMFILE, "Too many open files")
        return self._sock.accept()

    def close(self) -> None:
        """Close the real socket."""
        self._sock.close()


def test_an_accept_without_a_descriptor_closes_an_idle_connection(small: Running) -> None:
    """When no descriptor is left, the server frees one and accepts the new connection."""
    [server] = small.server._servers
    with small.connect(b"") as idle:
        ask(idle)
        until(lambda: small.channel_of(idle).can_be_evicted)
        server.socket = Exhausted(server.socket)
        assert answers(small, "127.0.0.2")
        assert idle.recv(1) == b""
