"""The HTTP server on a real socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from falcon import App, Request, Response

from llmd import config
from llmd.daemon.http import RESERVE_THREADS, HttpServer
from tests.service import until

SETTINGS = config.Server(
    listen=("127.0.0.1:0",),
    max_streams=1,
    max_queue=1,
    max_body_bytes=1024,
    header_deadline_s=0.5,
    body_deadline_s=0.5,
)


class Echo:
    """Tell what came; wait, if asked so, for a client to go."""

    def __init__(self) -> None:
        self.is_waiting = threading.Event()
        self.has_seen_client_go = threading.Event()

    def on_post(self, req: Request, resp: Response) -> None:
        """Answer with the length of the body."""
        resp.media = {"length": len(req.bounded_stream.read())}

    def on_get(self, req: Request, resp: Response) -> None:
        """Answer only once the client has gone."""
        self.is_waiting.set()
        gone = req.env["waitress.client_disconnected"]
        until(gone)
        self.has_seen_client_go.set()


class Broken:
    """Fail below every handler of errors."""

    def __iter__(self) -> Iterator[bytes]:
        raise RuntimeError("at 0x7f")

    def on_get(self, req: Request, resp: Response) -> None:
        """Hand the server a body that cannot be read."""
        resp.stream = self


class Stubborn:
    """Answer only when told to, whether or not the server still runs."""

    def __init__(self) -> None:
        self.is_running = threading.Event()
        self.may_end = threading.Event()

    def on_get(self, req: Request, resp: Response) -> None:
        """Wait to be told."""
        self.is_running.set()
        assert self.may_end.wait(20)


class Running:
    """A server whose loop runs in a thread."""

    def __init__(self) -> None:
        self.echo = Echo()
        self.stubborn = Stubborn()
        app: App[Request, Response] = App()
        app.add_route("/", self.echo)
        app.add_route("/broken", Broken())
        app.add_route("/stubborn", self.stubborn)
        self.server = HttpServer(app, SETTINGS)
        self._thread = threading.Thread(target=self.server.run, daemon=True)
        self._thread.start()
        [url] = self.server.urls
        host, _, port = url.removeprefix("http://").rpartition(":")
        self.address = (host, int(port))

    def connect(self, sent: bytes) -> socket.socket:
        """Open a connection and send something."""
        client = socket.create_connection(self.address, timeout=20)
        client.sendall(sent)
        return client

    def channel_of(self, client: socket.socket) -> Any:
        """Return the server's side of a connection."""
        [first] = self.server._servers
        port = client.getsockname()[1]
        [channel] = [at for at in first.active_channels.values() if at.addr[1] == port]
        return channel

    def forget_clients(self) -> None:
        """Let what waits for a client to go see it go, though the loop ends before it could."""
        [first] = self.server._servers
        for channel in list(first.active_channels.values()):
            channel.connected = False

    def stop(self, wait_s: float = 20) -> None:
        """End the loop as an empty map does; in the daemon it is SystemExit in the main thread."""
        [first] = self.server._servers
        channels = list(first.active_channels.values())
        first.trigger.pull_trigger(first._map.clear)
        self._thread.join(20)
        assert not self._thread.is_alive()
        self.server._dispatcher.shutdown(timeout=wait_s)
        self.server.close()
        for channel in channels:
            channel.socket.close()


@dataclass
class Reply:
    status: str
    headers: dict[str, str]
    body: Any


def read(client: socket.socket) -> Reply:
    """Read a whole response from a connection that the server closes after it."""
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
    """Return the code of an error, whose form is checked."""
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"]
    assert reply.headers["connection"] == "close"
    error = reply.body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] == reply.body["message"]
    return str(error["code"])


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """Give such a server."""
    made = Running()
    yield made
    made.forget_clients()
    made.stop()


def test_a_request_that_comes_too_slowly_is_refused(running: Running) -> None:
    """A head or a body that is not whole in time: 408 in the form of every error.

    A byte now and then does not help, and who says nothing at all is cut off.
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
    assert "head did not come in 0.5 s" in reply.body["message"]
    reply = read(body)
    assert (reply.status, code(reply)) == ("408 Request Timeout", "request_timeout")
    assert "body did not come in 0.5 s" in reply.body["message"]
    assert silent.recv(1) == b""


def test_a_length_of_thousands_of_digits_is_a_bad_request(running: Running) -> None:
    """It gets an answer, and no traceback into the log."""
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {'9' * 5000}\r\n\r\n"
    reply = read(running.connect(head.encode()))
    assert (reply.status[:3], code(reply)) == ("400", "bad_request")


def test_a_body_of_just_the_bound_is_read_and_one_byte_more_is_not(running: Running) -> None:
    """413 before the body is even sent; chunks are counted, with what frames them."""
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
    """What it still sends is thrown away until it has read the answer, or its time is over."""
    length = 20_000_000
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
    reply = read(running.connect(head.encode() + b"x" * length))
    assert (reply.status[:3], code(reply)) == ("413", "body_too_large")


def test_a_client_that_sends_on_forever_is_cut(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused connection does not stay because its client does not close it."""
    monkeypatch.setattr("llmd.daemon.http.LINGER_S", 0.0)
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
def test_what_is_no_http_is_refused_in_the_form_of_every_error(
    running: Running, raw: bytes
) -> None:
    """400, and the connection is closed."""
    reply = read(running.connect(raw))
    assert (reply.status[:3], code(reply)) == ("400", "bad_request")


def test_an_unknown_transfer_coding_and_a_huge_head_are_refused_so_too(running: Running) -> None:
    """501 and 431."""
    reply = read(running.connect(b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n"))
    assert (reply.status[:3], code(reply)) == ("501", "not_implemented")
    reply = read(running.connect(b"GET / HTTP/1.1\r\nX: " + b"x" * 262_144))
    assert (reply.status[:3], code(reply)) == ("431", "header_too_large")


def test_a_failure_below_every_handler_is_told_without_a_word_of_it(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """500 as an error of the server, in the one form; the log has the traceback."""
    reply = read(running.connect(b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert (reply.status[:3], code(reply)) == ("500", "internal_error")
    assert reply.body["error"]["type"] == "server_error"
    assert "0x7f" not in reply.body["message"]
    assert "at 0x7f" in caplog.text


def test_a_client_that_goes_away_is_noticed_while_it_waits(running: Running) -> None:
    """Without a byte written to it."""
    client = running.connect(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert running.echo.is_waiting.wait(20)
    client.close()
    assert running.echo.has_seen_client_go.wait(20)


def test_the_clock_of_a_request_starts_with_its_first_byte(running: Running) -> None:
    """Not with that of the request before it on the same connection."""
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok"
    with running.connect(request) as client:
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        channel = running.channel_of(client)
        until(lambda: channel.began is None)
        client.sendall(b"POST")
        until(lambda: channel.began is not None)


def test_a_request_that_waits_behind_another_is_not_late_by_that(running: Running) -> None:
    """The head of the next one came early; its clock starts when its turn comes."""
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
    """A reload needs no new socket."""
    [first] = running.server._servers
    other = msgspec.structs.replace(SETTINGS, header_deadline_s=99.0)
    running.server.set_deadlines(other)
    assert first.settings.header_deadline_s == 99.0
    running.server.set_deadlines(SETTINGS)


def test_a_thread_that_outlives_the_server_writes_into_no_file(tmp_path: Path) -> None:
    """A thread wakes the loop by the number of a pipe, which another file may have by then.

    It would be a byte of the database.
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
    """A stream holds a thread for its whole life, a request that waits too."""
    assert running.server.num_threads == 1 + 1 + RESERVE_THREADS
    assert RESERVE_THREADS >= 4
