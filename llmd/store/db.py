"""The database behind a URL: one writer, several readers, and the settings of SQLite."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import sqlalchemy
from sqlalchemy import event, exc
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import QueuePool

from llmd.errors import (
    ConfigError,
    InvalidField,
    SchemaError,
    StoreError,
    StoreFull,
    StoreUnavailable,
)

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine import ExceptionContext

Tx: TypeAlias = sqlalchemy.Connection
"""A transaction, as `Database.read` and `Database.write` yield it."""

MAX_PAGE = 1000
_BUSY_TIMEOUT_S = 5
_NUM_READERS = 8

_COMMON_PRAGMAS = (
    f"busy_timeout={_BUSY_TIMEOUT_S * 1000}",
    "synchronous=FULL",
    "trusted_schema=OFF",
    # With mapped pages an I/O error would raise a signal.
    "mmap_size=0",
)
# Only the writer checkpoints: before SQLite 3.51.3, a checkpoint during a commit may lose pages.
PRAGMAS = {
    "reader": (*_COMMON_PRAGMAS, "foreign_keys=ON", "query_only=ON", "wal_autocheckpoint=0"),
    "writer": (
        *_COMMON_PRAGMAS,
        "foreign_keys=ON",
        "journal_mode=WAL",
        "wal_autocheckpoint=1000",
        "journal_size_limit=67108864",
        "secure_delete=ON",
    ),
    # With the only connection, SQLite keeps the index of the log in memory instead of in a file.
    "only": (
        # This must come first: other pragmas already read the file.
        "locking_mode=EXCLUSIVE",
        *_COMMON_PRAGMAS,
        "foreign_keys=ON",
        "journal_mode=WAL",
        "wal_autocheckpoint=1000",
        "journal_size_limit=67108864",
        "secure_delete=ON",
    ),
    # SQLite ignores this pragma after BEGIN, and rebuilding a table needs foreign keys off.
    "migration": (*_COMMON_PRAGMAS, "foreign_keys=OFF", "journal_mode=WAL", "secure_delete=ON"),
}


def page_size(limit: int) -> int:
    """Return `limit`, or raise InvalidField if it is not from 1 to `MAX_PAGE`."""
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidField(f"limit must be 1 to {MAX_PAGE}", param="limit")
    return limit


def is_storable(text: str) -> bool:
    """Return whether `text` has no NUL and no lone surrogates, which some databases refuse."""
    return "\x00" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


def parse_url(url: str) -> URL:
    """Parse a database URL. Raise ConfigError, whose message never contains a password."""
    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except exc.ArgumentError as error:
        raise ConfigError("store.url must look like sqlite:////path/to/llmd.db") from error
    if parsed.get_backend_name() == "sqlite":
        if parsed.get_driver_name() != "pysqlite" or parsed.query or parsed.host:
            raise ConfigError(
                "store.url must look like sqlite:////path/to/llmd.db, "
                "without host, driver or parameters"
            )
        if parsed.database in (None, "", ":memory:") or str(parsed.database).startswith("file:"):
            raise ConfigError("store.url must name a file: sqlite:////path/to/llmd.db")
    return parsed


def sqlite_path(url: str) -> Path | None:
    """Return the file of an SQLite URL, or None for another database. Raise ConfigError."""
    parsed = parse_url(url)
    return Path(str(parsed.database)) if parsed.get_backend_name() == "sqlite" else None


def match_owner(path: Path, like: Path) -> None:
    """As root, give `path` the owner of `like`, so that the daemon can open it."""
    if os.geteuid() == 0:
        owner = like.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def create_file(path: Path) -> None:
    """Create an empty database file of mode 0600, unless it exists.

    Raise ConfigError if the folder is missing, StoreUnavailable if it cannot be written.
    """
    if path.exists():
        return
    if not path.parent.is_dir():
        raise ConfigError(f"store.url: the folder {path.parent} does not exist: create it first")
    try:
        # Created before SQLite opens it, so its mode is never wider. -wal and -shm inherit it.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        match_owner(path, path.parent)
    except FileExistsError:
        return
    except OSError as error:
        raise StoreUnavailable(f"cannot create the database {path}: {error.strerror}") from error


def make_engine(url: str, role: str) -> Engine:
    """Return an engine in one of the roles of `PRAGMAS`. It connects when it is used."""
    parsed = parse_url(url)
    is_sqlite = parsed.get_backend_name() == "sqlite"
    try:
        engine = sqlalchemy.create_engine(
            parsed,
            poolclass=QueuePool,
            pool_size=_NUM_READERS if role == "reader" else 1,
            max_overflow=0,
            pool_timeout=_BUSY_TIMEOUT_S,
            connect_args={"check_same_thread": False} if is_sqlite else {},
            # Parameters contain prompts and hashes, which must not appear in an error's text.
            hide_parameters=True,
        )
    except ImportError as error:
        raise ConfigError(
            f"store.url needs a driver that is not installed: {error.name}"
        ) from error
    if is_sqlite:
        _configure_sqlite(engine, PRAGMAS[role], "BEGIN" if role == "reader" else "BEGIN IMMEDIATE")
    return engine


def _configure_sqlite(engine: Engine, pragmas: tuple[str, ...], begin: str) -> None:
    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        # The driver must not begin transactions itself: it would do so too late for DDL.
        connection.isolation_level = None
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def start(tx: Tx) -> None:
        # The writer uses BEGIN IMMEDIATE: a transaction that begins with a read would fail at its
        # first write if another connection had written meanwhile.
        tx.exec_driver_sql(begin)

    @event.listens_for(engine, "handle_error")
    def disconnect(context: ExceptionContext) -> None:
        # After a failed fsync the cached pages may be wrong. A new connection reads the log.
        code = getattr(context.original_exception, "sqlite_errorcode", 0) & 0xFF
        context.is_disconnect = code == sqlite3.SQLITE_IOERR


def _unavailable(condition: str) -> Callable[[], StoreError]:
    return lambda: StoreUnavailable(f"the database {condition}: try again")


RESTORE = "restore a backup with `llmd db restore FILE`"
"""What to do about a damaged database. Every error about damage ends with it."""


def damaged_error() -> StoreError:
    """Return the error for a database that SQLite finds damaged."""
    return SchemaError(f"the database is damaged: {RESTORE}")


def _full_error() -> StoreError:
    return StoreFull("no space is left for the database: free some space")


_ERRORS_BY_CODE: dict[int, Callable[[], StoreError]] = {
    sqlite3.SQLITE_PERM: _unavailable("denies access"),
    sqlite3.SQLITE_BUSY: _unavailable("is locked by another process"),
    sqlite3.SQLITE_LOCKED: _unavailable("is locked"),
    sqlite3.SQLITE_READONLY: _unavailable("is read-only"),
    sqlite3.SQLITE_IOERR: _unavailable("had an I/O error"),
    sqlite3.SQLITE_CANTOPEN: _unavailable("cannot be opened"),
    sqlite3.SQLITE_FULL: _full_error,
    sqlite3.SQLITE_CORRUPT: damaged_error,
    sqlite3.SQLITE_NOTADB: damaged_error,
}


def _translate(error: Exception) -> StoreError | None:
    if isinstance(error, exc.TimeoutError):
        return StoreUnavailable("the database is busy: try again")
    cause: Any = error.orig if isinstance(error, exc.DBAPIError) else error
    if not isinstance(cause, sqlite3.Error):
        is_gone = isinstance(error, exc.OperationalError | exc.InterfaceError)
        return StoreUnavailable("the database cannot be reached: try again") if is_gone else None
    code = getattr(cause, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_IOERR_SHMSIZE:
        # The index of the log, a file of 32 KiB, cannot be created.
        return _full_error()
    # The low byte of an extended result code is the primary one.
    code &= 0xFF
    if code in _ERRORS_BY_CODE:
        return _ERRORS_BY_CODE[code]()
    if str(cause).startswith(("no such table", "no such column")):
        return SchemaError(
            f"the database has a different schema: run `llmd db upgrade`, or {RESTORE}"
        )
    return damaged_error() if str(cause).startswith("Could not decode") else None


@contextmanager
def driver_errors() -> Iterator[None]:
    """Turn errors of the driver into StoreUnavailable, StoreFull or SchemaError."""
    try:
        yield
    except UnicodeDecodeError as error:
        # The driver decodes the names in SQLite's message about a damaged schema.
        raise damaged_error() from error
    except (exc.DBAPIError, exc.TimeoutError, sqlite3.Error) as error:
        translated = _translate(error)
        if translated is None:
            raise
        raise translated from error


@contextmanager
def opening_errors() -> Iterator[None]:
    """Turn errors of the driver into those of llmd while a database is opened and checked.

    Every statement is known to be right then. So an error that does not tell another reason means
    that the database is damaged.
    """
    try:
        with driver_errors():
            yield
    except (exc.SQLAlchemyError, sqlite3.Error) as error:
        if isinstance(error, exc.DBAPIError) and not isinstance(error.orig, sqlite3.Error):
            raise
        raise damaged_error() from error


class Database:
    """The single writer and the readers of a process. Thread-safe."""

    def __init__(self, url: str, *, is_only: bool = False) -> None:
        """Prepare the connections to `url`, and create the file of SQLite if it is missing.

        With `is_only`, a single connection reads and writes, and locks out all others. SQLite then
        needs no further file, so that even a database on a full disk can be read. Raise
        ConfigError for a URL that cannot be used.
        """
        path = sqlite_path(url)
        self.is_sqlite = path is not None
        if path is not None:
            create_file(path)
        self._writer = make_engine(url, "only" if is_only else "writer")
        self._reader = self._writer if is_only else make_engine(url, "reader")

    @contextmanager
    def read(self) -> Iterator[Tx]:
        """Yield a transaction that reads one snapshot and cannot write."""
        with driver_errors(), self._reader.connect() as tx:
            yield tx

    @contextmanager
    def write(self) -> Iterator[Tx]:
        """Yield the write transaction. It is committed on exit, and rolled back on any error.

        There is one per process: do not nest it, and do nothing slow inside.
        """
        with driver_errors(), self._writer.begin() as tx:
            yield tx

    def check(self, *, full: bool = True) -> list[str]:
        """Return the problems of the database; none if it is intact. `full` checks indexes too."""
        if not self.is_sqlite:
            with self.read() as tx:
                tx.exec_driver_sql("SELECT 1")
            return []
        try:
            with self.read() as tx:
                pragma = "integrity_check" if full else "quick_check"
                found = [str(row[0]) for row in tx.exec_driver_sql(f"PRAGMA {pragma}")]
                lost = tx.exec_driver_sql("PRAGMA foreign_key_check").all()
        except SchemaError as error:
            return [error.message]
        problems = [] if found == ["ok"] else found
        return problems + [
            f"{row[0]}: row {row[1]} refers to a missing row of {row[2]}" for row in lost
        ]

    def close(self) -> None:
        """Close every connection, the writer last, so that it merges the log into the file."""
        self._reader.dispose()
        self._writer.dispose()
