"""Floods, ambiguous requests, damaged databases and second daemons, on the real daemon."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

from tests.e2e.client import HOST, Client
from tests.e2e.daemon import Daemon, Starter, environment
from tests.e2e.waiting import PATIENCE_S

NUM_CONNECTIONS = 1400

FLOODS = {
    "idle": b"",
    "half-sent": b"POST /answer HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n"
    + b"x" * 2000,
}


def exchange(daemon: Daemon, raw: bytes, source: str = HOST) -> bytes:
    """Send bytes, and return all that comes back until the daemon closes the connection."""
    received = b""
    with socket.create_connection((HOST, daemon.port), PATIENCE_S, (source, 0)) as sock:
        sock.sendall(raw)
        while data := sock.recv(65536):
            received += data
    return received


@pytest.mark.parametrize("sent", FLOODS.values(), ids=FLOODS)
def test_a_flood_of_connections_stops_nobody(start_daemon: Starter, sent: bytes) -> None:
    """While one address opens connection after connection, all requests are answered at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard not in {-1, resource.RLIM_INFINITY} and hard < NUM_CONNECTIONS + 500:
        pytest.skip("this process may not open enough connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, NUM_CONNECTIONS + 500), hard))
    daemon = start_daemon(server={"header_deadline_s": 300.0, "body_deadline_s": 300.0})
    health = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    slowest = 0.0
    with ExitStack() as flood:
        for number in range(NUM_CONNECTIONS):
            sock = socket.create_connection((HOST, daemon.port), PATIENCE_S, ("127.0.0.2", 0))
            flood.enter_context(sock)
            sock.sendall(sent)
            if number % 100 == 99:
                for source in ("127.0.0.1", "127.0.0.2"):
                    began = time.monotonic()
                    assert exchange(daemon, health, source).startswith(b"HTTP/1.1 200 ")
                    slowest = max(slowest, time.monotonic() - began)
        reply = daemon.client.call("POST", "/answer", {"prompt": "Hi", "max_tokens": 4})
        assert reply.status == 200
    assert slowest < 5
    assert "too many connections" in daemon.log


def test_head_and_slashes(daemon: Daemon) -> None:
    """HEAD is answered wherever GET is, and a path with an empty segment is no route."""
    raw = b"HEAD /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    head, _, body = exchange(daemon, raw).partition(b"\r\n\r\n")
    assert (head[:12], body) == (b"HTTP/1.1 200", b"")
    for path in ("//auth", "/auth//", "//health"):
        assert Client(daemon.port, daemon.key).get(path).status == 404


def test_a_second_daemon_on_the_same_database_is_refused(daemon: Daemon) -> None:
    """It ends with the exit code for a wrong configuration, and the first one serves on."""
    other = daemon.folder / "other.toml"
    other.write_text(daemon.config.read_text().replace(f":{daemon.port}", ":0"))
    done = subprocess.run(
        [sys.executable, "-m", "llmd", "--config", str(other), "serve"],
        check=False,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE_S,
    )
    assert done.returncode == 78
    assert "another llmd serves the database" in done.stderr
    assert Client(daemon.port, None).get("/health").status == 200


def test_a_damaged_schema_ends_the_start_with_78(start_daemon: Starter) -> None:
    """The daemon neither ends with a traceback nor starts with a schema that has changed."""
    daemon = start_daemon()
    assert daemon.stop() == 0
    whole = daemon.database.read_bytes()
    for before, after in ((b"num_turns INTEGER", b"num_turn\xff INTEGER"), (b"TABLE", b"TAXLE")):
        assert before in whole
        daemon.database.write_bytes(whole.replace(before, after))
        daemon.start(wait=False)
        assert daemon.wait_end() == 78
    assert "Traceback" not in daemon.log
    assert daemon.log.count("llmd db restore FILE") == 2
