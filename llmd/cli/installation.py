"""The installation on this machine: configuration, address, models, key file and database."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmd.errors import SchemaError, StoreUnavailable

if TYPE_CHECKING:
    from llmd.config import Config
    from llmd.config.address import Address
    from llmd.models.library import Library
    from llmd.store.db import Database

DEFAULT_CONFIG = Path("/etc/llmd/llmd.toml")

# A server can listen on all addresses at once, but a client needs one of them.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


class Installation:
    """The parts of llmd that a configuration file names. Each is loaded when it is needed."""

    def __init__(self, config_path: Path) -> None:
        self.config_path = config_path

    @cached_property
    def config(self) -> Config:
        """Return the configuration, or raise `ConfigError`."""
        from llmd import config

        return config.load(self.config_path)

    @property
    def address(self) -> Address:
        """Return the address at which a client reaches the daemon, or raise `ConfigError`."""
        from llmd.config.address import Address, parse_address

        first = parse_address(self.config.server.listen[0])
        return Address(host=_LOOPBACK.get(first.host, first.host), port=first.port)

    @property
    def url(self) -> str:
        """Return the URL of the daemon, or raise `ConfigError`."""
        host, port = self.address.host, self.address.port
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def library(self) -> Library:
        """Return the model files, or raise `ConfigError`."""
        from llmd.models.library import Library

        models = self.config.models
        return Library(Path(models.dir), Path(models.packaged_dir))

    @property
    def key_file(self) -> Path:
        """Return the path of the admin's key. The file need not exist."""
        return self.config_path.parent / "admin.key"

    @contextmanager
    def database(self) -> Iterator[Database]:
        """Open the database, whether or not the daemon is running. It is never created here.

        Raise `SchemaError` if it is missing or its schema is older or newer than this version,
        `StoreUnavailable` if this user may not open it.
        """
        from llmd.store import migrate
        from llmd.store.db import Database

        url = self.config.store.url
        require_file(url)
        migrate.require_head(url)
        db = Database(url)
        try:
            yield db
        finally:
            db.close()


pass_installation = click.make_pass_decorator(Installation)


def require_file(url: str) -> None:
    """Raise `SchemaError` if the SQLite file of `url` is missing.

    Raise `StoreUnavailable` if this user may not open it. Other databases are not checked.
    """
    from llmd.store.db import sqlite_path

    path = sqlite_path(url)
    if path is None:
        return
    try:
        path.stat()
    except FileNotFoundError:
        raise SchemaError(f"there is no database {path}: run `llmd init`") from None
    except PermissionError:
        raise _not_permitted(path) from None
    if not os.access(path, os.R_OK | os.W_OK):
        raise _not_permitted(path)


def _not_permitted(path: Path) -> StoreUnavailable:
    return StoreUnavailable(
        f"{user()} may not open the database {path}: run the command as root (sudo)"
    )


def user() -> str:
    """Return the name of the user who runs the command."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def actor() -> str:
    """Return the name under which the audit trail records what this command changes."""
    return f"cli:{user()}"
