"""The HTTP server on a real socket, with an application that does what a test needs."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

from falcon import App, Request, Response

from llmd import config
from llmd.api.stream import OUTLET
from llmd.daemon.http import HttpServer
from tests.support.service import until

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


class LeftOpen:
    """Begin a response, and leave the rest of it to others."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.outlet: Any = None

    def on_get(self, req: Request, resp: Response) -> None:
        """Give the way to the client away."""
        resp.stream = self._events(req.env[OUTLET])

    def _events(self, outlet: Any) -> Iterator[bytes]:
        yield b"begin"
        self.outlet = outlet
        assert self.may_end.wait(20)
        yield b"end"


class Running:
    """A server whose loop runs in a thread."""

    def __init__(self) -> None:
        self.echo = Echo()
        self.stubborn = Stubborn()
        self.pushed = LeftOpen()
        app: App[Request, Response] = App()
        app.add_route("/", self.echo)
        app.add_route("/broken", Broken())
        app.add_route("/stubborn", self.stubborn)
        app.add_route("/pushed", self.pushed)
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
        [channel] = [at for at in list(first.active_channels.values()) if at.addr[1] == port]
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
