"""A connection, with deadlines for slow clients, limits, and errors in llmd's own form."""

from __future__ import annotations

import contextlib
import errno
import secrets
import socket
import time
from typing import Any

import msgspec
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, WSGITask
from waitress.utilities import Error, RequestEntityTooLarge

from llmd import config
from llmd.api import errors
from llmd.daemon.connections import Connections, source_of
from llmd.daemon.request_parser import Parser

LINGER_S = 5.0
"""Seconds that a client which was refused while still sending has to read the error."""

_ACCEPTS_PER_TURN = 64
"""Connections to accept in each turn of the main loop.

With fewer, a client that opens many at once would fill the queue of the listening socket.
"""

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
"""Errors of accept() that mean that no descriptor or memory is left for a connection."""


class RequestTimeout(Error):
    """The client took too long to send its request."""

    code = 408
    reason = "Request Timeout"


class JsonErrorTask(ErrorTask):
    """Answer a request that waitress itself refuses, in the form of every other error."""

    def execute(self) -> None:
        """Write the error response and close the connection."""
        error = self.request.error
        self.status = f"{error.code} {error.reason}"
        message = f"{error.reason.lower()}: {error.body}"
        if isinstance(error, RequestEntityTooLarge):
            limit = self.channel.server.settings.max_body_bytes
            message = f"the body has more than {limit} bytes: see [server] max_body_bytes"
        body = msgspec.json.encode(errors.transport_body(error.code, message))
        self.response_headers += [
            ("Content-Type", "application/json"),
            ("x-request-id", secrets.token_hex(8)),
        ]
        self.set_close_on_finish()
        self.channel.lingers = True
        self.content_length = len(body)
        # A request that could not be parsed has no method.
        self.write(b"" if getattr(self.request, "command", "") == "HEAD" else body)


class RequestTask(WSGITask):
    """Answer a request by the application."""

    def get_environment(self) -> dict[str, Any]:
        """Return the WSGI environment, with the path as it was sent."""
        environ: dict[str, Any] = super().get_environment()
        # waitress removes slashes from its beginning, so that `//auth` would be `/auth`.
        environ["PATH_INFO"] = self.request.path
        return environ


class Channel(HTTPChannel):
    """A connection with deadlines for a whole head and a whole body.

    waitress by itself waits as long as any byte arrives now and then.
    """

    error_task_class = JsonErrorTask
    task_class = RequestTask
    parser_class = Parser
    request: Any
    is_silent = True
    """No byte has arrived on this connection yet."""
    began: float | None = None
    """Monotonic time at which the request that is being read began."""
    lingers = False
    """A refusal was sent, so the client gets time to read it before the connection closes."""
    lingers_until: float | None = None
    """Monotonic time at which a lingering connection is closed."""
    is_serving = False
    """A thread is answering a request, or has not yet noted that it has answered it."""
    is_evicted = False
    """The connection gives way to another one."""

    def __init__(
        self, server: Server, sock: socket.socket, addr: Any, *args: Any, **kw: Any
    ) -> None:
        self.source = source_of(addr[0])
        self.idle_since = time.monotonic()
        super().__init__(server, sock, addr, *args, **kw)
        server.connections.add(self)

    @property
    def can_be_evicted(self) -> bool:
        """Whether no request of the connection is being answered or waits for its answer."""
        return not self.requests and not self.is_serving

    @property
    def eviction_rank(self) -> tuple[bool, float]:
        """Connections without an unsent response come first, then those idle for longest.

        For a request that is not complete, the time since its first byte counts.
        """
        since = self.idle_since if self.began is None else self.began
        return self.total_outbufs_len > 0, since

    @property
    def num_partial_bytes(self) -> int:
        """The bytes that are held of a request that is not complete."""
        request = self.request
        return len(request.header_plus) + request.body_bytes_received if request else 0

    def evict(self) -> None:
        """Close the connection in the next turn of the main loop.

        At once would be too early: a new connection could get the same descriptor, and with it the
        events that the system reported for the old one.
        """
        self.is_evicted = self.will_close = True

    def received(self, data: bytes) -> bool:
        """Take bytes from the client. The first byte of a request starts the deadline."""
        if self.lingers_until is not None or self.is_evicted:
            return False
        if self.began is None or self.is_silent:
            self.began = time.monotonic()
        self.is_silent = False
        taken = bool(super().received(data))
        if self.request is None:
            self.began = None
        self.server.connections.note_partial(self)
        return taken

    def service(self) -> None:
        """Answer one request, in a thread of the server."""
        self.is_serving = True
        try:
            super().service()
        finally:
            self.idle_since = time.monotonic()
            self.is_serving = False

    def del_channel(self, map: Any = None) -> None:  # noqa: A002 - the name is waitress's
        """Forget the connection, which is closed."""
        super().del_channel(map)
        self.server.connections.remove(self)

    def handle_close(self) -> None:
        """Close the connection; after a refusal, close only the sending half at first.

        If the whole connection closed while the client is sending, the client's system would drop
        the error response before the client has read it.
        """
        is_refused = self.lingers and self.connected and not self.is_evicted
        if not is_refused or self.lingers_until is not None:
            super().handle_close()
            return
        self.idle_since = time.monotonic()
        self.lingers_until = self.idle_since + LINGER_S
        self.will_close = self.close_when_flushed = False
        self.request = self.began = None
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            super().handle_close()

    def check_deadline(self, settings: config.Server, now: float) -> None:
        """Refuse a request that is late, and close a connection that stays silent or lingers."""
        if self.lingers_until is not None:
            if now > self.lingers_until:
                self.handle_close()
            return
        if self.is_silent:
            # Connections cost a client nothing, so silent ones must not keep other clients out.
            self.began = self.began or now
            self.will_close = now - self.began > settings.header_deadline_s
            return
        request = self.request
        if request is None or self.began is None:
            return
        if self.requests:
            # The client cannot know how long the request before this one takes.
            self.began = now
            return
        part, limit_s = (
            ("body", settings.body_deadline_s)
            if request.headers_finished
            else ("head", settings.header_deadline_s)
        )
        if now - self.began <= limit_s:
            return
        with self.requests_lock:
            request.error = RequestTimeout(
                f"the request's {part} did not arrive within {limit_s:g} s"
            )
            request.completed = True
            self.request = self.began = None
            self.requests.append(request)
        self.server.add_task(self)


class Server(TcpWSGIServer):
    """A listening socket with its connections."""

    channel_class = Channel

    def __init__(
        self, settings: config.Server, connections: Connections, *args: Any, **kwargs: Any
    ) -> None:
        self.settings = settings
        self.connections = connections
        super().__init__(*args, **kwargs)

    def handle_accept(self) -> None:
        """Accept the connections that wait, up to a limit for each turn of the main loop."""
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                sock, address = self.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    # The evicted connection is closed in the next turn.
                    self.connections.evict_one()
                    return
                # The client has already disconnected.
                continue
            if not self.connections.admit(source_of(address[0])):
                _refuse(sock)
                continue
            try:
                self.set_socket_options(sock)
            except OSError:
                sock.close()
                continue
            self.channel_class(self, sock, self.fix_addr(address), self.adj, map=self._map)

    def maintenance(self, now: float) -> None:
        """Close idle connections, as waitress does, and refuse requests that arrive too slowly."""
        super().maintenance(now)
        monotonic_now = time.monotonic()
        for channel in list(self.active_channels.values()):
            channel.check_deadline(self.settings, monotonic_now)


def _refuse(sock: socket.socket) -> None:
    """Answer a connection with 503, if its socket takes that at once, and close it."""
    body = msgspec.json.encode(errors.transport_body(503, "too many connections: try again later"))
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 2\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"x-request-id: {secrets.token_hex(8)}\r\n\r\n"
    )
    with sock, contextlib.suppress(OSError):
        sock.setblocking(False)
        sock.send(head.encode() + body)
        sock.shutdown(socket.SHUT_WR)
