"""waitress, with deadlines for slow clients and errors in llmd's own form."""

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
from llmd.daemon.outlet import Task
from llmd.errors import ConfigError

RESERVE_THREADS = 4
"""For `/health`, `/auth` and refusals, while every stream and every place in the queue is taken."""

_MAX_CONNECTIONS = 1000
_OTHER_DESCRIPTORS = 100
"""For the database, workers, model files and what a thread opens: accept() must not take these."""
_IDLE_S = 60
_RESPONSE_S = 5.0
LINGER_S = 5.0
"""How long a client that was refused while it still sends may take to read why."""


class RequestTimeout(Error):
    """The client took too long to send its request."""

    code = 408
    reason = "Request Timeout"


class JsonErrorTask(ErrorTask):
    """Answer what waitress itself refuses, in the form of every other error."""

    def execute(self) -> None:
        """Write the answer and close the connection."""
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
    """A head that Python cannot read is the client's fault."""

    def parse_header(self, header_plus: bytes) -> None:
        """Read the head. Raise ParsingError for what is wrong with it."""
        try:
            super().parse_header(header_plus)
        except ValueError:
            # int() reads no number of more than 4,300 digits.
            raise ParsingError("Content-Length is no number that can be read") from None


class Channel(HTTPChannel):
    """A connection whose head and body must come in time, not only some byte now and then."""

    error_task_class = JsonErrorTask
    parser_class = Parser
    task_class = Task
    request: Any
    is_silent = True
    began: float | None = None
    lingers = False
    lingers_until: float | None = None

    def received(self, data: bytes) -> bool:
        """Take bytes from the client; the first of a request starts its clock."""
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
        """Close; after a refusal only our half at first.

        To close while the client sends makes its system drop what it has not read yet: the answer.
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
        """Refuse a request that is not complete in time."""
        if self.lingers_until is not None:
            if now > self.lingers_until:
                self.handle_close()
            return
        if self.is_silent:
            # Connections cost nothing to make: whoever says nothing must not keep others out.
            self.began = self.began or now
            self.will_close = now - self.began > settings.header_deadline_s
            return
        request = self.request
        if request is None or self.began is None:
            return
        if self.requests:
            # Its client cannot know how long the request before it takes.
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
            request.error = RequestTimeout(f"the request's {part} did not come in {limit_s:g} s")
            request.completed = True
            self.request = self.began = None
            self.requests.append(request)
        self.server.add_task(self)


class Server(TcpWSGIServer):
    """One listening socket."""

    channel_class = Channel

    def __init__(self, settings: config.Server, *args: Any, **kwargs: Any) -> None:
        self.settings = settings
        super().__init__(*args, **kwargs)

    def maintenance(self, now: float) -> None:
        """Close idle connections, as waitress does, and refuse requests that come too slowly."""
        super().maintenance(now)
        monotonic_now = time.monotonic()
        for channel in list(self.active_channels.values()):
            channel.check_deadline(self.settings, monotonic_now)


class HttpServer:
    """All listening sockets with one pool of threads."""

    def __init__(
        self, app: App, settings: config.Server, sockets: Sequence[socket.socket] = ()
    ) -> None:
        """Bind every address, unless `sockets` that are bound already are to be used instead.

        Raise `ConfigError` that names an address which cannot be bound.
        """
        self.num_threads = settings.max_streams + settings.max_queue + RESERVE_THREADS
        self._sockets = list(sockets) or [_bind(parse_address(text)) for text in settings.listen]
        adjustments = Adjustments(
            sockets=self._sockets,
            threads=self.num_threads,
            # Without it a client that goes away is noticed only when something is written to it.
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
        """Where it listens, with the real port where 0 was asked for."""
        names = (sock.getsockname()[:2] for sock in self._sockets)
        return [
            f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            for host, port in names
        ]

    def set_deadlines(self, settings: config.Server) -> None:
        """Take other deadlines than before."""
        for server in self._servers:
            server.settings = settings

    def is_responsive(self) -> bool:
        """Tell whether the main loop takes up what it is asked to within some seconds."""
        taken_up = threading.Event()
        self._servers[0].trigger.pull_trigger(taken_up.set)
        return taken_up.wait(_RESPONSE_S)

    def run(self) -> None:
        """Serve until SystemExit is raised in this thread, then wait 5 s for what still runs."""
        self._servers[0].run()

    def close(self) -> None:
        """Close the sockets. Only after `run` has returned: its threads use them to the end.

        A thread that `run` did not wait for still wakes the loop when it is done, through a pipe
        that it knows by number. Closed, that number may by then be a database's.
        """
        for server in self._servers:
            if self._dispatcher.threads:
                server.socket.close()
            else:
                server.close()


def _connection_limit(num_threads: int) -> int:
    """Return how many connections to hold: what the process may open, less what else it needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = num_threads + _MAX_CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < wanted + _OTHER_DESCRIPTORS:
        most = wanted + _OTHER_DESCRIPTORS
        soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        wanted = min(wanted, max(num_threads, soft - _OTHER_DESCRIPTORS))
    return wanted


def _bind(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    where = f"{address.host}:{address.port}"
    try:
        *_, place = socket.getaddrinfo(address.host, address.port, family, socket.SOCK_STREAM)[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(f"[server] listen: {where}: {error.strerror}") from None
    except UnicodeError:
        message = f"[server] listen: {where}: a part of a host name has 1 to 63 characters"
        raise ConfigError(message) from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # So that [::] and 0.0.0.0 can both be listened on.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(place)
    except OSError as error:
        sock.close()
        raise ConfigError(f"[server] listen: cannot bind {where}: {error.strerror}") from None
    return sock
