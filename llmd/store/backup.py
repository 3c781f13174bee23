"""Back up a live database to a file, and restore it from such a file."""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from llmd.errors import ConfigError, Conflict, ImportRefused, SchemaError
from llmd.store import migrate
from llmd.store.db import match_owner, sqlite_path
from llmd.store.integrity import SCHEMA_QUERY, compare_schema
from llmd.store.snapshot import file_errors, find_problems, snapshot, sync

_SIDE_FILE_SUFFIXES = ("-wal", "-shm", "-journal")
_LOCK_WAIT_S = 0.2


def _require_sqlite_path(url: str) -> Path:
    path = sqlite_path(url)
    if path is None:
        raise ConfigError("llmd backs up SQLite only: use the tools of the database in store.url")
    return path


def _part_path(target: Path) -> Path:
    """Return a name beside `target` for a file that is not yet complete."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")


def backup(url: str, file: Path) -> None:
    """Copy the database, which may be in use, to the new `file` of mode 0600, and check the copy.

    The copy contains every turn that was acknowledged before the start. Raise Conflict if `file`
    exists, SchemaError if the copy is damaged, StoreFull or StoreUnavailable.
    """
    path = _require_sqlite_path(url)
    if os.path.lexists(file):
        raise Conflict(f"{file} already exists: choose another name")
    part = _part_path(file)
    snapshot(path, part)
    with file_errors():
        try:
            found = find_problems(part)
            if found:
                raise SchemaError(f"the copy is damaged and was not kept: {found[0]}")
            part.rename(file)
            sync(file.parent)
        finally:
            part.unlink(missing_ok=True)


def restore(url: str, file: Path, *, now: int) -> Path | None:
    """Replace the database by the one in `file`. Return the new name of the old one, or None.

    The old files are renamed together, never deleted. Raise ImportRefused if `file` is not an
    intact database of llmd, SchemaError if it is newer, Conflict while another process has the
    database open, StoreFull or StoreUnavailable. An error changes nothing.
    """
    path = _require_sqlite_path(url)
    if not file.is_file():
        raise ImportRefused(f"{file} does not exist: use a file made by `llmd db backup`")
    part = _part_path(path)
    try:
        # The copy is checked instead of the file, so that the checked data is what is installed.
        _copy_checked(file, part)
        with file_errors(), _exclusive_lock(path):
            match_owner(part, path if path.exists() else path.parent)
            aside = _move_aside(path, now)
            part.replace(path)
            sync(path.parent)
    finally:
        part.unlink(missing_ok=True)
    return aside


def _copy_checked(file: Path, part: Path) -> None:
    try:
        snapshot(file, part)
    except SchemaError as error:
        raise ImportRefused(f"{file} is not a complete database: use another backup") from error
    found = find_problems(part)
    if found:
        raise ImportRefused(f"{file} is damaged: {found[0]}: use another backup")
    with closing(sqlite3.connect(f"{part.absolute().as_uri()}?mode=ro", uri=True)) as copy:
        try:
            row = copy.execute("SELECT version_num FROM alembic_version").fetchone()
            schema = copy.execute(SCHEMA_QUERY).fetchall()
        except (sqlite3.DatabaseError, UnicodeDecodeError):
            row, schema = None, []
    if row is None:
        raise ImportRefused(f"{file} is not a database of llmd: use a file of `llmd db backup`")
    migrate.require_known(row[0])
    if row[0] == migrate.head() and (found := compare_schema(schema)):
        raise ImportRefused(f"{file} is damaged: {found[0]}: use another backup")


@contextmanager
def _exclusive_lock(path: Path) -> Iterator[None]:
    """Lock other processes out of the database. Raise Conflict if one has it open."""
    if not path.exists():
        yield
        return
    uri = f"{path.absolute().as_uri()}?mode=rw"
    with closing(
        sqlite3.connect(uri, uri=True, timeout=_LOCK_WAIT_S, isolation_level=None)
    ) as present:
        try:
            # Leaving WAL mode merges the log into the file. SQLite refuses it while another
            # connection is open.
            present.execute("PRAGMA journal_mode=DELETE")
            present.execute("BEGIN EXCLUSIVE")
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise Conflict("the database is in use: stop llmd first") from error
            # The database is damaged, which may be why it is being restored. Whether another
            # process has it open cannot be found out then.
        yield


def _move_aside(path: Path, now: int) -> Path | None:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    aside = path.with_name(f"{path.name}.{stamp}.replaced")
    # The log is moved first: if it stayed, SQLite would replay it into the restored file.
    for suffix in _SIDE_FILE_SUFFIXES:
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            beside.rename(aside.with_name(aside.name + suffix))
    if not path.exists():
        return None
    # A link instead of a rename, so that a database exists at every moment.
    os.link(path, aside)
    return aside
