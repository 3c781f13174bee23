"""Connections, transactions, and the translation of driver errors."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import insert, select

from llmd.errors import (
    ConfigError,
    InvalidField,
    SchemaError,
    StoreFull,
    StoreUnavailable,
)
from llmd.store import db as db_module
from llmd.store import migrate, tables
from llmd.store.db import Database, page_size
from llmd.store.settings import Settings


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the file of a database with the newest schema."""
    file = tmp_path / "llmd.db"
    migrate.upgrade(f"sqlite:///{file}", now=0)
    return file


@pytest.fixture
def db(path: Path) -> Iterator[Database]:
    """Provide that database, open."""
    database = Database(f"sqlite:///{path}")
    yield database
    database.close()


def put(db: Database, name: str, value: str = "") -> None:
    """Insert a row directly into the settings table."""
    with db.write() as tx:
        tx.execute(insert(tables.settings).values(name=name, value=value, updated_at=0))


def names(db: Database) -> list[str]:
    """Return the names of the rows that `put` inserted."""
    with db.read() as tx:
        return list(tx.execute(select(tables.settings.c.name)).scalars())


@pytest.mark.parametrize(
    "url",
    [
        "",
        "llmd.db",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:x?uri=true",
        "sqlite:////x/llmd.db?mode=ro",
        "sqlite+aiosqlite:////x/llmd.db",
        "nosuch://host/db",
        "postgresql+nosuch://host/db",
        "sqlite:////nonexistent-folder/llmd.db",
    ],
)
def test_a_url_that_cannot_work_is_an_error_of_the_configuration(url: str) -> None:
    """A bad URL is refused at once, and the message names the setting."""
    with pytest.raises(ConfigError, match=r"store\.url"):
        Database(url)


def test_a_password_in_a_url_is_not_repeated() -> None:
    """An error about a URL does not contain its password."""
    with pytest.raises(ConfigError) as caught:
        Database("nosuch://llmd:hunter2@host/db")
    assert "hunter2" not in str(caught.value)


def test_the_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    """Only the owner can read the database, its log and its index."""
    before = os.umask(0)
    try:
        url = f"sqlite:///{tmp_path}/llmd.db"
        migrate.upgrade(url, now=0)
        db = Database(url)
        put(db, "a")
        modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
        db.close()
    finally:
        os.umask(before)
    assert modes == {"llmd.db": 0o600, "llmd.db-wal": 0o600, "llmd.db-shm": 0o600}


def test_every_connection_is_set_up_for_durability(db: Database) -> None:
    """Every connection syncs commits, checks foreign keys and maps no pages."""
    wanted = {"foreign_keys": 1, "busy_timeout": 5000, "synchronous": 2, "trusted_schema": 0}
    with db.write() as tx:
        found = {name: tx.exec_driver_sql(f"PRAGMA {name}").scalar() for name in wanted}
        assert found == wanted
        assert tx.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert tx.exec_driver_sql("PRAGMA secure_delete").scalar() == 1
        assert not tx.exec_driver_sql("PRAGMA mmap_size").scalar()
    with db.read() as tx:
        assert {name: tx.exec_driver_sql(f"PRAGMA {name}").scalar() for name in wanted} == wanted
        assert tx.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar() == 0


def test_a_reader_cannot_write(db: Database) -> None:
    """The connection of a reader refuses every change."""
    with pytest.raises(StoreUnavailable), db.read() as tx:
        tx.execute(insert(tables.settings).values(name="a", value="", updated_at=0))
    assert names(db) == []


def test_an_error_inside_a_write_undoes_all_of_it(db: Database) -> None:
    """An exception inside a write passes unchanged and rolls the transaction back."""
    with pytest.raises(KeyError), db.write() as tx:
        tx.execute(insert(tables.settings).values(name="a", value="", updated_at=0))
        raise KeyError
    assert names(db) == []


def test_a_table_created_inside_a_failing_write_is_gone(db: Database) -> None:
    """A transaction begins before its first statement, so DDL is rolled back too."""
    with pytest.raises(KeyError), db.write() as tx:
        tx.exec_driver_sql("CREATE TABLE extra (id INTEGER)")
        raise KeyError
    with db.read() as tx:
        assert "extra" not in sqlalchemy.inspect(tx).get_table_names()


def test_a_reader_sees_one_snapshot(db: Database) -> None:
    """Rows that are committed during a read do not appear in it."""
    with db.read() as tx:
        query = select(tables.settings.c.name)
        assert tx.execute(query).all() == []
        put(db, "a")
        assert tx.execute(query).all() == []
    assert names(db) == ["a"]


def test_a_write_of_another_process_shows_at_the_next_read(db: Database, path: Path) -> None:
    """Nothing is cached, because the command line may write at any time."""
    assert names(db) == []
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("INSERT INTO settings VALUES ('a', '', 0)")
    assert names(db) == ["a"]


def test_writes_of_many_threads_all_arrive(db: Database) -> None:
    """Concurrent writers of one process wait for each other and lose nothing."""

    def work(thread: int) -> None:
        for number in range(20):
            put(db, f"{thread}-{number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names(db)) == 160


def test_a_locked_database_is_unavailable_and_then_works_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During a long write of another process, writes wait and then fail; reads continue."""
    short_timeout = ("busy_timeout=20", "journal_mode=WAL")
    monkeypatch.setitem(db_module.PRAGMAS, "writer", short_timeout)
    db = Database(f"sqlite:///{path}")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            put(db, "a")
        assert names(db) == []
        other.execute("ROLLBACK")
    put(db, "a")
    assert names(db) == ["a"]
    db.close()


def test_a_write_holds_the_lock_from_its_beginning(db: Database, path: Path) -> None:
    """A write locks the database before its first read, so it cannot fail half-way."""
    with (
        closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other,
        db.write() as tx,
    ):
        tx.execute(select(tables.settings.c.name)).all()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")


def test_a_full_database_refuses_writes_and_recovers(db: Database) -> None:
    """Without space, writes raise StoreFull and reads continue; with space, writes work again."""
    with db.write() as tx:
        num_pages = tx.exec_driver_sql("PRAGMA page_count").scalar()
        tx.exec_driver_sql(f"PRAGMA max_page_count={num_pages}")
    with pytest.raises(StoreFull):
        put(db, "big", "x" * 100_000)
    assert names(db) == []
    with db.write() as tx:
        tx.exec_driver_sql("PRAGMA max_page_count=1000000")
    put(db, "big", "x" * 100_000)
    assert names(db) == ["big"]
    assert db.check() == []


@pytest.mark.parametrize(
    "damage", [b"not a database at all" * 300, b"SQLite format 3\x00" + b"\xff" * 5000]
)
def test_an_error_about_a_damaged_file_names_restore(path: Path, damage: bytes) -> None:
    """SchemaError names `llmd db restore`, and the damaged file is left unchanged."""
    path.write_bytes(damage)
    db = Database(f"sqlite:///{path}")
    with pytest.raises(SchemaError, match="llmd db restore"):
        Settings(db).selection()
    assert db.check() != []
    db.close()
    assert path.read_bytes() == damage


@pytest.mark.parametrize("page", range(1, 12))
def test_a_damaged_page_is_found_or_refused(db: Database, path: Path, page: int) -> None:
    """Whichever page is damaged, `check` reports it, and reading raises only SchemaError."""
    for number in range(50):
        put(db, f"n{number}", "x" * 500)
    db.close()
    data = bytearray(path.read_bytes())
    start = min(page * 4096, len(data) - 4096)
    data[start : start + 64] = bytes(64)
    path.write_bytes(data)
    damaged = Database(f"sqlite:///{path}")
    assert damaged.check() != []
    with contextlib.suppress(SchemaError):
        names(damaged)
    damaged.close()


def test_a_broken_reference_is_a_problem(db: Database, path: Path) -> None:
    """`check` finds a turn without a session, which the integrity check alone does not."""
    with closing(sqlite3.connect(path)) as other, other:
        turn = "(99,1,'u','a','p',1,'m',0,0,0,'stop',NULL,0,NULL,'')"
        other.execute(f"INSERT INTO turns VALUES {turn}")
    problem = "turns: row 1 refers to a missing row of sessions"
    assert db.check() == db.check(full=False) == [problem]


def test_an_error_about_a_missing_table_names_upgrade(tmp_path: Path) -> None:
    """A missing table raises SchemaError, which names `llmd db upgrade`."""
    db = Database(f"sqlite:///{tmp_path}/llmd.db")
    with pytest.raises(SchemaError, match="llmd db upgrade"):
        Settings(db).selection()
    db.close()


def test_an_sql_error_does_not_show_parameters(db: Database) -> None:
    """The text of an SQL error leaves out the parameters, which are prompts and hashes."""
    put(db, "a")
    with pytest.raises(sqlalchemy.exc.IntegrityError) as caught:
        put(db, "a", "a secret")
    assert "a secret" not in str(caught.value)


@pytest.mark.parametrize("limit", [-1, 0, 1001])
def test_a_page_is_bounded(limit: int) -> None:
    """A limit below 1 or above 1000 is refused. SQLite would take -1 for no limit."""
    with pytest.raises(InvalidField, match="1 to 1000"):
        page_size(limit)
