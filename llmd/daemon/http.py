"""The HTTP server: waitress with deadlines for slow clients and errors in llmd's own form."""

from __future__ import annotations

import resource
import secrets
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

import msgspec
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher
from waitress.utilities import Error, RequestEntityTooLarge

from llmd import config
from llmd.api import errors
from llmd.api.app import App
from llmd.config.address import Address, parse_address
from llmd.errors import ConfigError

RESERVE_THREADS = 4
"""Threads for `/health`, `/auth` and refusals while all streams and the whole queue are in use."""

_MAX_CONNECTIONS = 1000
"""Connections to hold beside one for each thread."""

_OTHER_DESCRIPTORS = 100
"""File descriptors that accept() must leave to the database, workers, model files and threads."""

_IDLE_S = 60
"""Seconds after which a connection without a request is closed."""

_RESPONSE_S = 5.0
"""Seconds within which a responsive main loop runs a function that it is given."""

LINGER_S = 5.0
"""Seconds that a client which was refused while still sending has to read the error."""


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
        self.write(body)


class Parser(HTTPRequestParser):
    """A parser that treats a head which Python cannot parse as the client's error."""

    def parse_header(self, header_plus: bytes) -> None:
        """Parse the head. Raise `ParsingError` if it is wrong."""
        try:
            super().parse_header(header_plus)
        except ValueError:
            # int() refuses numbers of more than 4,300 digits.
            raise ParsingError("Content-Length is not a readable number") from None


class Channel(HTTPChannel):
    """A connection with deadlines for a whole head and a whole body.

    waitress by itself waits as long as any byte arrives now and then.
    """

    error_task_class = JsonErrorTask
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

    def received(self, data: bytes) -> bool:
        """Take bytes from the client. The first byte of a request starts the deadline."""
        if self.lingers_until is not None:
            return False
        if self.began is None or self.is_silent:
            self.began = time.monotonic()
        self.is_silent = False
        taken = bool(super().received(data))
        if self.request is None:
            self.began = None
        return taken

    def handle_close(self) -> None:
        """Close the connection; after a refusal, close only the sending half at first.

        If the whole connection closed while the client is sending, the client's system would drop
        the error response before the client has read it.
        """
        if not (self.lingers and self.connected) or self.lingers_until is not None:
            super().handle_close()
            return
        self.lingers_until = time.monotonic() + LINGER_S
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

    def __init__(self, settings: config.Server, *args: Any, **kwargs: Any) -> None:
        self.settings = settings
        super().__init__(*args, **kwargs)

    def maintenance(self, now: float) -> None:
        """Close idle connections, as waitress does, and refuse requests that arrive too slowly."""
        super().maintenance(now)
        monotonic_now = time.monotonic()
        for channel in list(self.active_channels.values()):
            channel.check_deadline(self.settings, monotonic_now)


class HttpServer:
    """All listening sockets, served by one main loop and one pool of threads."""

    def __init__(
        self, app: App, settings: config.Server, sockets: Sequence[socket.socket] = ()
    ) -> None:
        """Bind every address in `settings`, or use `sockets`, which are bound already.

        Raise `ConfigError` if an address cannot be bound.
        """
        self.num_threads = settings.max_streams + settings.max_queue + RESERVE_THREADS
        self._sockets = list(sockets) or [_bind(parse_address(text)) for text in settings.listen]
        adjustments = Adjustments(
            sockets=self._sockets,
            threads=self.num_threads,
            # Without lookahead, a lost client is noticed only when something is written to it.
            channel_request_lookahead=1,
            asyncore_use_poll=True,
            connection_limit=_connection_limit(self.num_threads),
            max_request_body_size=settings.max_body_bytes + 1,
            channel_timeout=_IDLE_S,
            cleanup_interval=1,
            ident="llmd",
            clear_untrusted_proxy_headers=True,
        )
        self._dispatcher = ThreadedTaskDispatcher()
        self._dispatcher.set_thread_count(self.num_threads)
        sockets_map: dict[int, Any] = {}
        self._servers = [
            Server(
                settings,
                app,
                sockets_map,
                _sock=sock,
                dispatcher=self._dispatcher,
                adj=adjustments,
                bind_socket=False,
                sockinfo=(sock.family, sock.type, sock.proto, sock.getsockname()),
            )
            for sock in self._sockets
        ]

    @property
    def urls(self) -> list[str]:
        """The URLs of the listening sockets, with the port that the system chose for port 0."""
        names = (sock.getsockname()[:2] for sock in self._sockets)
        return [
            f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            for host, port in names
        ]

    def set_deadlines(self, settings: config.Server) -> None:
        """Apply the deadlines of `settings` from now on."""
        for server in self._servers:
            server.settings = settings

    def is_responsive(self) -> bool:
        """Return whether the main loop responds within `_RESPONSE_S`."""
        has_responded = threading.Event()
        self._servers[0].trigger.pull_trigger(has_responded.set)
        return has_responded.wait(_RESPONSE_S)

    def run(self) -> None:
        """Serve until SystemExit is raised in this thread, then wait up to 5 s for the threads."""
        self._servers[0].run()

    def close(self) -> None:
        """Close the sockets. Call it only after `run` has returned, because threads use them.

        A thread that outlives `run` still wakes the main loop through a pipe, which it knows by its
        descriptor. The pipe must stay open: its descriptor could be reused for a database.
        """
        for server in self._servers:
            if self._dispatcher.threads:
                server.socket.close()
            else:
                server.close()


def _connection_limit(num_threads: int) -> int:
    """Return the number of connections to hold. Raise the limit of open files if it is too low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = num_threads + _MAX_CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < wanted + _OTHER_DESCRIPTORS:
        needed = wanted + _OTHER_DESCRIPTORS
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        wanted = min(wanted, max(num_threads, soft - _OTHER_DESCRIPTORS))
    return wanted


def _bind(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    text = f"{address.host}:{address.port}"
    try:
        *_, sockaddr = socket.getaddrinfo(address.host, address.port, family, socket.SOCK_STREAM)[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(f"[server] listen: {text}: {error.strerror}") from None
    except UnicodeError:
        message = f"[server] listen: {text}: each part of a host name must have 1 to 63 characters"
        raise ConfigError(message) from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Otherwise [::] would take the IPv4 address too, and 0.0.0.0 could not be bound.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(sockaddr)
    except OSError as error:
        sock.close()
        raise ConfigError(f"[server] listen: cannot bind {text}: {error.strerror}") from None
    return sock
