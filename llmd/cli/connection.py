"""The connection of a command: the daemon that it calls, and the key that it sends."""

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

_MAX_KEY_FILE_BYTES = 4096


def connection_options(function: _Function) -> _Function:
    """Add --url and --key-file to a command."""
    url = click.option(
        "--url",
        metavar="URL",
        envvar="LLMD_URL",
        show_envvar=True,
        help="The daemon's address; default: [server] listen in the configuration.",
    )
    # Without click's envvar, because LLMD_KEY comes between the option and LLMD_KEY_FILE.
    key_file = click.option(
        "--key-file",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Read the key from this file; default: LLMD_KEY, then the file that LLMD_KEY_FILE "
        "names, then admin.key next to the configuration.",
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
    """Return a client of the daemon at `url`, or of this machine's daemon.

    Raise `InvalidField` if a key is needed and there is none, `ConfigError` if the address must be
    read from a configuration that is wrong.
    """
    from llmd.cli.client import Client

    key = _key(installation, key_file)
    if key is None and needs_key:
        raise InvalidField(
            "there is no key: set LLMD_KEY, or name the file of the key with --key-file",
            param="key",
        )
    return Client(url or installation.url, key, timeout_s=timeout_s)


def _key(installation: Installation, key_file: Path | None) -> str | None:
    """Return the key of the option, of the environment or of this machine's admin, if any."""
    if key_file is not None:
        return _read(key_file)
    if key := os.environ.get("LLMD_KEY", "").strip():
        return key
    if named := os.environ.get("LLMD_KEY_FILE"):
        return _read(Path(named))
    try:
        return _read(installation.key_file)
    except OSError:
        # The file is missing, or this user may not read it.
        return None


def _read(file: Path) -> str:
    with file.open("rb") as opened:
        content = opened.read(_MAX_KEY_FILE_BYTES)
    key = content.decode("ascii", "replace").strip()
    if not key:
        raise InvalidField(f"{file} is empty: it must hold a key", param="key")
    return key
