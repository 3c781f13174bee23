"""The HTTP server: the listening sockets, with one main loop and one pool of threads for all."""

from __future__ import annotations

import resource
import socket
import threading
from collections.abc import Sequence
from typing import Any

from waitress.adjustments import Adjustments
from waitress.task import ThreadedTaskDispatcher

from llmd import config
from llmd.api.app import App
from llmd.config.address import Address, parse_address
from llmd.daemon.channel import Server
from llmd.daemon.connections import Connections
from llmd.errors import ConfigError

RESERVE_THREADS = 4
"""Threads for `/health`, `/auth` and refusals while all streams and the whole queue are in use."""

_MAX_CONNECTIONS = 1000
"""Connections to hold beside one for each thread."""

_NUM_RESERVED = 64
"""Connections that are kept for addresses that have none."""

_OTHER_DESCRIPTORS = 300
"""File descriptors that accept() must leave to the database, workers, model files and threads.

Evicted connections and large bodies, which are kept in files, need some of them too.
"""

_MAX_HEAD_BYTES = 65_536
"""The most bytes of a request's head."""

_MEMORY_BODY_BYTES = 1_048_576
"""A body that is larger is kept in a file. By default, none is."""

_MAX_PARTIAL_BYTES = 67_108_864
"""The most bytes that all incomplete requests may hold, unless two of the largest hold more."""

_IDLE_S = 60
"""Seconds after which a connection without a request is closed."""

_RESPONSE_S = 5.0
"""Seconds within which a responsive main loop runs a function that it is given."""


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
        max_connections = _connection_limit(self.num_threads)
        connections = Connections(
            max_total=max_connections,
            # A proxy in front of llmd must be able to use every thread.
            max_per_source=(max_connections + self.num_threads) // 2,
            num_reserved=min(_NUM_RESERVED, (max_connections - self.num_threads) // 2),
            max_partial_bytes=max(_MAX_PARTIAL_BYTES, 2 * settings.max_body_bytes),
        )
        adjustments = Adjustments(
            sockets=self._sockets,
            threads=self.num_threads,
            # Without lookahead, a lost client is noticed only when something is written to it.
            channel_request_lookahead=1,
            asyncore_use_poll=True,
            # `connections` has its own limit. waitress's would stop accepting at all.
            connection_limit=2 * max_connections + _OTHER_DESCRIPTORS,
            max_request_header_size=_MAX_HEAD_BYTES,
            max_request_body_size=settings.max_body_bytes + 1,
            inbuf_overflow=_MEMORY_BODY_BYTES + 1,
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
                connections,
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
