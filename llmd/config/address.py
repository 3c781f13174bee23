"""Addresses to listen on, written ``host:port``."""

from __future__ import annotations

import ipaddress
import re

from msgspec import Struct

from llmd.errors import ConfigError

_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?\.?")


class Address(Struct, frozen=True, kw_only=True):
    """The address of a TCP socket. `host` has no brackets; with port 0 the system chooses one."""

    host: str
    port: int


def parse_address(text: str) -> Address:
    """Return the address in `host:port` or `[v6]:port`. Raise ConfigError if it is neither."""
    host, colon, port = text.rpartition(":")
    number = int(port) if re.fullmatch("[0-9]{1,5}", port) else -1
    if colon and 0 <= number <= 65535:
        if host.startswith("[") and host.endswith("]"):
            try:
                return Address(host=str(ipaddress.IPv6Address(host[1:-1])), port=number)
            except ValueError:
                pass
        elif _HOST.fullmatch(host):
            return Address(host=host, port=number)
    raise ConfigError(f'{text!r} is not "host:port" or "[v6]:port" with a port from 0 to 65535')
