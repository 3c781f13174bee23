"""Which daemon a command calls, and with which key."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from llmd.cli.installation import Installation
from llmd.errors import InvalidField

if TYPE_CHECKING:
    from llmd.cli.client import Client

_Function = TypeVar("_Function", bound=Callable[..., Any])

# "All addresses" is where a server listens, not where a client goes.
_TO_HERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
_MAX_KEY_FILE_BYTES = 4096


def connection_options(function: _Function) -> _Function:
    """Add --url and --key-file to a command."""
    url = click.option(
        "--url",
        metavar="URL",
        envvar="LLMD_URL",
        show_envvar=True,
        help="The daemon's address; default: [server] listen of the configuration.",
    )
    # Without click's envvar: LLMD_KEY stands between the option and LLMD_KEY_FILE.
    key_file = click.option(
        "--key-file",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="A file with the key; default: LLMD_KEY, then the file that LLMD_KEY_FILE names, "
        "then admin.key beside the configuration.",
    )
    return url(key_file(function))


def connect(
    installation: Installation,
    url: str | None,
    key_file: Path | None,
    *,
    timeout_s: float = 60.0,
    needs_key: bool = True,
) -> Client:
    """Return a client of the daemon that is meant.

    Raise InvalidField when there is no key and one is needed, ConfigError when the address must be
    taken from a configuration that is wrong.
    """
    from llmd.cli.client import Client

    key = _key(installation, key_file)
    if key is None and needs_key:
        raise InvalidField(
            "there is no key: set LLMD_KEY, or name a file that holds it with --key-file",
            param="key",
        )
    return Client(url or _listens_at(installation), key, timeout_s=timeout_s)


def _listens_at(installation: Installation) -> str:
    from llmd.config.address import parse_address

    address = parse_address(installation.config.server.listen[0])
    host = _TO_HERE.get(address.host, address.host)
    return f"http://[{host}]:{address.port}" if ":" in host else f"http://{host}:{address.port}"


def _key(installation: Installation, key_file: Path | None) -> str | None:
    """Return the key of the option, of the environment or of this machine's admin, or None."""
    if key_file is not None:
        return _read(key_file)
    if key := os.environ.get("LLMD_KEY", "").strip():
        return key
    if named := os.environ.get("LLMD_KEY_FILE"):
        return _read(Path(named))
    try:
        return _read(installation.key_file)
    except OSError:
        # Not there, or the admin's alone.
        return None


def _read(file: Path) -> str:
    with file.open("rb") as opened:
        content = opened.read(_MAX_KEY_FILE_BYTES)
    key = content.decode("ascii", "replace").strip()
    if not key:
        raise InvalidField(f"{file} is empty: it must hold a key", param="key")
    return key
