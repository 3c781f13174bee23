"""The llmd of this machine, as a command finds it: configuration, database and key file."""

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
    from llmd.models.library import Library
    from llmd.store.db import Database

DEFAULT_CONFIG = Path("/etc/llmd/llmd.toml")


class Installation:
    """Hold the place of the configuration; what follows from it is read when it is asked for."""

    def __init__(self, config_path: Path) -> None:
        self.config_path = config_path

    @cached_property
    def config(self) -> Config:
        """Return the configuration, or raise ConfigError."""
        from llmd import config

        return config.load(self.config_path)

    @property
    def library(self) -> Library:
        """Return the model files, or raise ConfigError."""
        from llmd.models.library import Library

        models = self.config.models
        return Library(Path(models.dir), Path(models.packaged_dir))

    @property
    def key_file(self) -> Path:
        """Return where the admin's own key is, if it is anywhere."""
        return self.config_path.parent / "admin.key"

    @contextmanager
    def database(self) -> Iterator[Database]:
        """Open the database, whether the daemon runs or not; it is never made here.

        Raise SchemaError when it is missing, behind or newer, StoreUnavailable when it is not ours
        to open.
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
    """Raise SchemaError when the SQLite file of `url` is missing, StoreUnavailable if closed to us.

    Of another kind of database nothing is known before it is opened.
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
        raise _not_ours(path) from None
    if not os.access(path, os.R_OK | os.W_OK):
        raise _not_ours(path)


def _not_ours(path: Path) -> StoreUnavailable:
    return StoreUnavailable(
        f"the database {path} may not be opened by {user()}: run this as root (sudo)"
    )


def user() -> str:
    """Return the name of the user who runs the command."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def actor() -> str:
    """Return who changes things, for the audit trail."""
    return f"cli:{user()}"
