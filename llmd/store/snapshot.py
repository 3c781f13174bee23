"""One whole, consistent copy of an SQLite file, also while others write to it."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from llmd.errors import StoreFull, StoreUnavailable
from llmd.store.db import driver_errors


@contextmanager
def file_errors() -> Iterator[None]:
    """Turn OSError into StoreFull or StoreUnavailable."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull("no space is left on the device: free some") from error
        raise StoreUnavailable(f"cannot write {error.filename}: {error.strerror}") from error


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def find_problems(path: Path) -> list[str]:
    """Return what is wrong with a database file that nobody else has open."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as file:
            found = [str(row[0]) for row in file.execute("PRAGMA integrity_check")]
            lost = file.execute("PRAGMA foreign_key_check").fetchall()
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return ([] if found == ["ok"] else found) + [f"{row[0]}: a lost reference" for row in lost]


def snapshot(source: Path, target: Path) -> None:
    """Copy `source` to the new file `target`: mode 0600, one file, and on the disk.

    The copy is not checked. Raise StoreUnavailable, StoreFull, or SchemaError when the source is
    no database; nothing is left behind then.
    """
    with file_errors():
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        try:
            # mode=rw makes no file where there is none, and can read a log left by a crash.
            mode = "rw" if os.access(source, os.W_OK) else "ro"
            uri = f"{source.absolute().as_uri()}?mode={mode}"
            with (
                driver_errors(),
                closing(sqlite3.connect(uri, uri=True)) as original,
                closing(sqlite3.connect(target)) as copy,
            ):
                original.execute("PRAGMA query_only=ON")
                # In one step: in several, every write of others would start it over.
                original.backup(copy, pages=-1)
                # A copy in WAL mode would be three files as soon as somebody looks at it.
                copy.execute("PRAGMA journal_mode=DELETE")
            sync(target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
