"""The HTTP server on a real socket, with an application for tests."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any, cast

import msgspec
from falcon import App, Request, Response

from llmd import config
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
    """Report the length of a body, or wait until the client has gone."""

    def __init__(self) -> None:
        self.is_waiting = threading.Event()
        self.has_seen_client_go = threading.Event()

    def on_post(self, req: Request, resp: Response) -> None:
        """Answer with the length of the body."""
        resp.media = {"length": len(req.bounded_stream.read())}

    def on_get(self, req: Request, resp: Response) -> None:
        """Wait until the client has gone, then answer."""
        self.is_waiting.set()
        gone = req.env["waitress.client_disconnected"]
        until(gone)
        self.has_seen_client_go.set()


class Broken:
    """A response body whose iteration fails, outside of Falcon's error handlers."""

    def __iter__(self) -> Iterator[bytes]:
        raise RuntimeError("at 0x7f")

    def on_get(self, req: Request, resp: Response) -> None:
        """Answer with a body that cannot be iterated."""
        resp.stream = self


class Stubborn:
    """A handler that does not end until the test allows it, even if the server stops."""

    def __init__(self) -> None:
        self.is_running = threading.Event()
        self.may_end = threading.Event()

    def on_get(self, req: Request, resp: Response) -> None:
        """Wait until the test allows the answer."""
        self.is_running.set()
        assert self.may_end.wait(20)


class Running:
    """A server whose loop runs in a thread."""

    def __init__(self, **options: Any) -> None:
        """Start a server with `SETTINGS`, in which `options` are replaced.

        `num_requests` counts the requests that reach the application.
        """
        self.echo = Echo()
        self.stubborn = Stubborn()
        app: App[Request, Response] = App()
        app.add_route("/", self.echo)
        app.add_route("/broken", Broken())
        app.add_route("/stubborn", self.stubborn)
        self.num_requests = 0

        def count(environ: Any, start_response: Any) -> Any:
            self.num_requests += 1
            return app(environ, start_response)

        self.server = HttpServer(
            cast("App[Request, Response]", count), msgspec.structs.replace(SETTINGS, **options)
        )
        self._thread = threading.Thread(target=self.server.run, daemon=True)
        self._thread.start()
        [url] = self.server.urls
        host, _, port = url.removeprefix("http://").rpartition(":")
        self.address = (host, int(port))

    def connect(self, sent: bytes) -> socket.socket:
        """Open a connection and send bytes."""
        client = socket.create_connection(self.address, timeout=20)
        client.sendall(sent)
        return client

    def channel_of(self, client: socket.socket) -> Any:
        """Return the server's channel of a client's connection."""
        [first] = self.server._servers
        port = client.getsockname()[1]
        [channel] = [at for at in list(first.active_channels.values()) if at.addr[1] == port]
        return channel

    def forget_clients(self) -> None:
        """Mark all clients as gone, because the loop may end before it notices."""
        [first] = self.server._servers
        for channel in list(first.active_channels.values()):
            channel.connected = False

    def stop(self, wait_s: float = 20) -> None:
        """End the loop by emptying its socket map. In the daemon SystemExit ends it."""
        [first] = self.server._servers
        channels = list(first.active_channels.values())
        first.trigger.pull_trigger(first._map.clear)
        self._thread.join(20)
        assert not self._thread.is_alive()
        self.server._dispatcher.shutdown(timeout=wait_s)
        self.server.close()
        for channel in channels:
            # The loop has already closed some of them.
            if channel.socket is not None:
                channel.socket.close()
