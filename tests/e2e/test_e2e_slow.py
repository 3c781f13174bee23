"""Clients that are slow on purpose do not block others."""

from __future__ import annotations

import json
import socket
import threading

import pytest

from tests.e2e.client import HOST
from tests.e2e.daemon import Daemon, Starter

pytestmark = pytest.mark.e2e

HASTY = {"server": {"header_deadline_s": 0.5, "body_deadline_s": 0.5, "max_streams": 2}}


def _connect(daemon: Daemon) -> socket.socket:
    return socket.create_connection((HOST, daemon.port), 60)


def _drip(sock: socket.socket, text: bytes, stopped: threading.Event) -> None:
    """Send single bytes with pauses, so that there is progress but no end."""
    for number in range(len(text)):
        try:
            sock.sendall(text[number : number + 1])
        except OSError:
            return
        if stopped.wait(0.05):
            return


def _read_all(sock: socket.socket) -> bytes:
    received = b""
    try:
        while chunk := sock.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass
    return received


def _check_cut(daemon: Daemon, begun: bytes, dripped: bytes) -> None:
    """Send `begun` at once and `dripped` byte by byte; the connection must end with 408."""
    stopped = threading.Event()
    with _connect(daemon) as sock:
        sock.sendall(begun)
        dripping = threading.Thread(target=_drip, args=[sock, dripped, stopped])
        dripping.start()
        try:
            received = _read_all(sock)
        finally:
            stopped.set()
            dripping.join()
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 408 ", b"HTTP/1.0 408 "))
    assert json.loads(body)["error"]["code"] == "request_timeout"


def test_a_dripping_head_is_cut_off(start_daemon: Starter) -> None:
    """A request head must be complete in time, even if bytes keep coming."""
    daemon = start_daemon(**HASTY)
    _check_cut(daemon, b"GET /auth HTTP/1.1\r\nHost: llmd\r\n", b"X-Slow: " + b"a" * 100_000)
    _check_cut(daemon, b"", b"GET /auth" + b"a" * 100_000)
    assert daemon.client.get("/auth").status == 200


def test_a_dripping_body_is_cut_off(start_daemon: Starter) -> None:
    """A body must be complete in time, whatever its length, and occupies no stream meanwhile."""
    daemon = start_daemon(**HASTY)
    head = f"POST /answer HTTP/1.1\r\nHost: llmd\r\nAuthorization: {daemon.key}\r\n"
    _check_cut(daemon, f"{head}Content-Length: 100000\r\n\r\n".encode(), b" " * 100_000)
    assert daemon.streams()["active"] == 0


def test_many_unfinished_requests_do_not_block_others(start_daemon: Starter) -> None:
    """A complete request is answered at once beside more unfinished heads than threads."""
    daemon = start_daemon(server={"max_streams": 2, "max_queue": 2, "header_deadline_s": 120})
    slow = [_connect(daemon) for _ in range(60)]
    try:
        for sock in slow:
            sock.sendall(b"POST /answer HTTP/1.1\r\nHost: llmd\r\n")
        assert daemon.client.ask("Say hello.", max_tokens=2)["result"]
        # All unfinished requests are still open: none was cut off for the complete one.
        for sock in slow:
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(1)
    finally:
        for sock in slow:
            sock.close()
    assert daemon.client.get("/auth").status == 200
