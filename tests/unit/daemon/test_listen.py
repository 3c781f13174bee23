"""The addresses that the HTTP server listens on, and the end of its main loop."""

from __future__ import annotations

import socket

import msgspec
import pytest
from falcon import App

from llmd import config
from llmd.daemon.http import HttpServer
from llmd.errors import ConfigError
from tests.support.service import Background

SETTINGS = config.Server(listen=("127.0.0.1:0",), max_streams=1, max_queue=1)


def test_every_address_is_listened_on() -> None:
    """The server listens on IPv4 and IPv6, and its URLs have the actual ports."""
    listen = ("127.0.0.1:0", "[::1]:0") if socket.has_ipv6 else ("127.0.0.1:0", "127.0.0.1:0")
    try:
        server = HttpServer(App(), msgspec.structs.replace(SETTINGS, listen=listen))
    except ConfigError:
        pytest.skip("this machine has no IPv6 address")
    first, second = server.urls
    assert first.startswith("http://127.0.0.1:")
    assert second.startswith(("http://[::1]:", "http://127.0.0.1:"))
    assert ":0" not in (first + second)[-2:]
    server._dispatcher.shutdown()
    server.close()


def test_an_address_that_is_taken_is_an_error_of_the_configuration() -> None:
    """The error for an address in use names the option and the address."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(ConfigError) as refused:
            HttpServer(App(), msgspec.structs.replace(SETTINGS, listen=(taken,)))
    assert "[server] listen" in refused.value.message
    assert taken in refused.value.message


@pytest.mark.parametrize("host", ["a" * 64, "a..b"])
def test_an_impossible_host_is_an_error_of_the_configuration(host: str) -> None:
    """A host name that even the resolver rejects is reported as a configuration error."""
    with pytest.raises(ConfigError, match="listen"):
        HttpServer(App(), msgspec.structs.replace(SETTINGS, listen=(f"{host}:1",)))


def test_the_loop_ends_by_system_exit() -> None:
    """SystemExit, which the daemon's signal handler raises, ends the main loop."""

    def leave() -> None:
        server = HttpServer(App(), SETTINGS)
        server._servers[0].readable = _exit
        server.run()
        server.close()

    Background(leave).wait()


def _exit() -> bool:
    raise SystemExit(0)
