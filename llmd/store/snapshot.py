"""Make a consistent copy of an SQLite file, even while others write to it, and check it."""

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
            raise StoreFull("no space is left on the device: free some space") from error
        raise StoreUnavailable(f"cannot write {error.filename}: {error.strerror}") from error


def sync(path: Path) -> None:
    """Wait until the content of a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def find_problems(path: Path) -> list[str]:
    """Return the problems of a database file that no other process has open; none if intact."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as file:
            found = [str(row[0]) for row in file.execute("PRAGMA integrity_check")]
            lost = file.execute("PRAGMA foreign_key_check").fetchall()
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        return [str(error)]
    return ([] if found == ["ok"] else found) + [
        f"{row[0]} refers to a missing row" for row in lost
    ]


def snapshot(source: Path, target: Path) -> None:
    """Copy `source` to the new file `target` of mode 0600, and wait until it is on the disk.

    The copy is not checked. Raise StoreUnavailable, StoreFull, or SchemaError if the source is not
    a database; then no file is left.
    """
    with file_errors():
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        try:
            # mode=rw creates no file, and can recover a log left by a crash.
            mode = "rw" if os.access(source, os.W_OK) else "ro"
            uri = f"{source.absolute().as_uri()}?mode={mode}"
            with (
                driver_errors(),
                closing(sqlite3.connect(uri, uri=True)) as original,
                closing(sqlite3.connect(target)) as copy,
            ):
                original.execute("PRAGMA query_only=ON")
                # In one step: with several, each write of another process would restart the copy.
                original.backup(copy, pages=-1)
                # A copy in WAL mode would become three files as soon as it is opened.
                copy.execute("PRAGMA journal_mode=DELETE")
            sync(target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
