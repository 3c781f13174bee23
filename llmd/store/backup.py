"""Copy a live database to a file, and bring such a file back."""

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
from llmd.store.snapshot import file_errors, find_problems, snapshot, sync

_SIDE_FILE_SUFFIXES = ("-wal", "-shm", "-journal")
_LOCK_WAIT_S = 0.2


def _require_sqlite_path(url: str) -> Path:
    path = sqlite_path(url)
    if path is None:
        raise ConfigError("llmd copies SQLite only: use the tools of the database in store.url")
    return path


def _part_path(target: Path) -> Path:
    """Name a file for the time until it is whole."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")


def backup(url: str, file: Path) -> None:
    """Copy the database, which may be in use, to the new `file`: whole, checked and mode 0600.

    Every turn that was acknowledged before the start is in it. Raise Conflict when `file` is
    there, SchemaError when the copy is not sound, StoreFull or StoreUnavailable.
    """
    path = _require_sqlite_path(url)
    if os.path.lexists(file):
        raise Conflict(f"{file} is there already: choose another name")
    part = _part_path(file)
    snapshot(path, part)
    with file_errors():
        try:
            found = find_problems(part)
            if found:
                raise SchemaError(f"the copy is not sound, and so not kept: {found[0]}")
            part.rename(file)
            sync(file.parent)
        finally:
            part.unlink(missing_ok=True)


def restore(url: str, file: Path, *, now: int) -> Path | None:
    """Put the database in `file` in the place of the present one, and return where that went.

    None when there was none. The present files are moved aside together, never deleted. Raise
    ImportRefused when `file` is no sound database of llmd, SchemaError when it is newer, Conflict
    while another process has the database open, StoreFull or StoreUnavailable: nothing is changed
    then.
    """
    path = _require_sqlite_path(url)
    if not file.is_file():
        raise ImportRefused(f"{file} is not there: name a file made by `llmd db backup`")
    part = _part_path(path)
    try:
        # The copy is checked, not the file: what was checked is what is put in place.
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
        raise ImportRefused(f"{file} is not a whole database: take another backup") from error
    found = find_problems(part)
    if found:
        raise ImportRefused(f"{file} is damaged: {found[0]}: take another backup")
    with closing(sqlite3.connect(f"{part.absolute().as_uri()}?mode=ro", uri=True)) as copy:
        try:
            row = copy.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError:
            row = None
    if row is None:
        raise ImportRefused(f"{file} is not a database of llmd: take a file of `llmd db backup`")
    migrate.require_known(row[0])


@contextmanager
def _exclusive_lock(path: Path) -> Iterator[None]:
    """Hold the database against other processes, or raise Conflict while one has it open."""
    if not path.exists():
        yield
        return
    uri = f"{path.absolute().as_uri()}?mode=rw"
    with closing(
        sqlite3.connect(uri, uri=True, timeout=_LOCK_WAIT_S, isolation_level=None)
    ) as present:
        try:
            # Leaving WAL folds the log into the file, and is refused while anyone else is there.
            present.execute("PRAGMA journal_mode=DELETE")
            present.execute("BEGIN EXCLUSIVE")
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise Conflict("the database is in use: stop llmd first") from error
            # Damaged, and that is why somebody restores: it cannot be told who else has it.
        yield


def _move_aside(path: Path, now: int) -> Path | None:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    aside = path.with_name(f"{path.name}.{stamp}.replaced")
    # The log goes first: left behind, it would be played into the restored file.
    for suffix in _SIDE_FILE_SUFFIXES:
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            beside.rename(aside.with_name(aside.name + suffix))
    if not path.exists():
        return None
    # A second name instead of another: at no moment is there no database.
    os.link(path, aside)
    return aside
