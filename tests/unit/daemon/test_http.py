"""The HTTP server on a real socket."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import msgspec

from llmd.daemon.http import RESERVE_THREADS
from tests.support.echo_server import SETTINGS, Running
from tests.support.service import until


def test_a_client_that_goes_away_is_noticed_while_it_waits(running: Running) -> None:
    """The server notices a lost client without writing to it."""
    client = running.connect(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert running.echo.is_waiting.wait(20)
    client.close()
    assert running.echo.has_seen_client_go.wait(20)


def test_the_clock_of_a_request_starts_with_its_first_byte(running: Running) -> None:
    """On a reused connection, the deadline of a request does not include the one before it."""
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok"
    with running.connect(request) as client:
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        channel = running.channel_of(client)
        until(lambda: channel.began is None)
        client.sendall(b"POST")
        until(lambda: channel.began is not None)


def test_a_request_is_not_late_because_it_waits_behind_another(running: Running) -> None:
    """The deadline of a pipelined request starts when the request before it is done."""
    running.echo.is_waiting.clear()
    with running.connect(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nPOST / HT") as client:
        assert running.echo.is_waiting.wait(20)
        channel = running.channel_of(client)
        until(lambda: channel.requests and channel.request)
        began = channel.began
        channel.check_deadline(SETTINGS, 1e12)
        assert channel.request.error is None
        assert channel.began > began


def test_deadlines_are_replaced_at_once(running: Running) -> None:
    """New deadlines apply to sockets that are already open."""
    [first] = running.server._servers
    other = msgspec.structs.replace(SETTINGS, header_deadline_s=99.0)
    running.server.set_deadlines(other)
    assert first.settings.header_deadline_s == 99.0
    running.server.set_deadlines(SETTINGS)


def test_a_thread_that_outlives_the_server_writes_into_no_file(tmp_path: Path) -> None:
    """A thread that ends late wakes the loop through a pipe whose descriptor is not reused.

    Otherwise the thread would write a byte into another file, such as the database.
    """
    running = Running()
    [first] = running.server._servers
    threads = running.server._dispatcher.threads
    with running.connect(b"GET /stubborn HTTP/1.1\r\nHost: x\r\n\r\n"):
        assert running.stubborn.is_running.wait(20)
        running.stop(wait_s=0)
        with ExitStack() as files:
            for number in range(50):
                files.enter_context((tmp_path / str(number)).open("wb"))
            running.stubborn.may_end.set()
            until(lambda: not threads)
        first.trigger.close()
    assert {file.stat().st_size for file in tmp_path.iterdir()} == {0}


def test_threads_are_enough_for_all_that_run_and_wait_and_for_refusals(running: Running) -> None:
    """Each stream and each waiting request holds a thread, and a reserve answers the others."""
    assert running.server.num_threads == 1 + 1 + RESERVE_THREADS
    assert RESERVE_THREADS >= 4
