"""The connections: who may write, what waits, and what the driver's errors become."""

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
    """Give the file of a database at the newest schema."""
    file = tmp_path / "llmd.db"
    migrate.upgrade(f"sqlite:///{file}", now=0)
    return file


@pytest.fixture
def db(path: Path) -> Iterator[Database]:
    """Give that database, open."""
    database = Database(f"sqlite:///{path}")
    yield database
    database.close()


def put(db: Database, name: str, value: str = "") -> None:
    """Write a row that no repository knows."""
    with db.write() as tx:
        tx.execute(insert(tables.settings).values(name=name, value=value, updated_at=0))


def names(db: Database) -> list[str]:
    """Return the names of the rows that `put` wrote."""
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
    """It says which setting is wrong, at once and not at the first request."""
    with pytest.raises(ConfigError, match=r"store\.url"):
        Database(url)


def test_a_password_in_a_url_is_not_repeated() -> None:
    """An error about the URL shows nothing of it."""
    with pytest.raises(ConfigError) as caught:
        Database("nosuch://llmd:hunter2@host/db")
    assert "hunter2" not in str(caught.value)


def test_the_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    """The database and its log and index are readable by their owner alone."""
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
    """The writer syncs every commit in WAL mode; both hold to foreign keys and map no pages."""
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
    """What reads holds a connection that refuses every change."""
    with pytest.raises(StoreUnavailable), db.read() as tx:
        tx.execute(insert(tables.settings).values(name="a", value="", updated_at=0))
    assert names(db) == []


def test_an_error_inside_a_write_undoes_all_of_it(db: Database) -> None:
    """The exception passes through as it is, and no row stays."""
    with pytest.raises(KeyError), db.write() as tx:
        tx.execute(insert(tables.settings).values(name="a", value="", updated_at=0))
        raise KeyError
    assert names(db) == []


def test_a_table_made_inside_a_failing_write_is_gone(db: Database) -> None:
    """The transaction begins before the first statement, so DDL is undone too."""
    with pytest.raises(KeyError), db.write() as tx:
        tx.exec_driver_sql("CREATE TABLE extra (id INTEGER)")
        raise KeyError
    with db.read() as tx:
        assert "extra" not in sqlalchemy.inspect(tx).get_table_names()


def test_a_reader_sees_one_moment(db: Database) -> None:
    """What is committed meanwhile does not show within the same read."""
    with db.read() as tx:
        query = select(tables.settings.c.name)
        assert tx.execute(query).all() == []
        put(db, "a")
        assert tx.execute(query).all() == []
    assert names(db) == ["a"]


def test_a_write_of_another_process_shows_at_the_next_read(db: Database, path: Path) -> None:
    """Nothing is cached: the command line may write at any time."""
    assert names(db) == []
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("INSERT INTO settings VALUES ('a', '', 0)")
    assert names(db) == ["a"]


def test_writes_of_many_threads_all_arrive(db: Database) -> None:
    """The writers of a process wait for one another."""

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
    """Another process in a long write makes us wait, then refuse; reads go on all the time."""
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
    """What it reads before it writes cannot change meanwhile, so it never fails half-way."""
    with (
        closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other,
        db.write() as tx,
    ):
        tx.execute(select(tables.settings.c.name)).all()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")


def test_a_full_database_refuses_writes_and_recovers(db: Database) -> None:
    """No space is StoreFull; reads go on, nothing half is kept, and more space is enough."""
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
def test_a_damaged_file_names_the_way_back(path: Path, damage: bytes) -> None:
    """SchemaError tells of `llmd db restore`, and the file is left as it is."""
    path.write_bytes(damage)
    db = Database(f"sqlite:///{path}")
    with pytest.raises(SchemaError, match="llmd db restore"):
        Settings(db).selection()
    assert db.check() != []
    db.close()
    assert path.read_bytes() == damage


@pytest.mark.parametrize("page", range(1, 12))
def test_a_damaged_page_is_found_or_refused(db: Database, path: Path, page: int) -> None:
    """Whatever page is overwritten: no exception but ours, and `check` tells of it."""
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


def test_a_lost_reference_is_a_problem(db: Database, path: Path) -> None:
    """`check` finds a turn whose session is gone, which the integrity check alone does not."""
    with closing(sqlite3.connect(path)) as other, other:
        turn = "(99,1,'u','a','p',1,'m',0,0,0,'stop',NULL,0,NULL)"
        other.execute(f"INSERT INTO turns VALUES {turn}")
    problem = "turns: row 1 refers to a missing row of sessions"
    assert db.check() == db.check(full=False) == [problem]


def test_an_empty_database_tells_to_upgrade(tmp_path: Path) -> None:
    """A missing table is SchemaError with the command, not an error of SQL."""
    db = Database(f"sqlite:///{tmp_path}/llmd.db")
    with pytest.raises(SchemaError, match="llmd db upgrade"):
        Settings(db).selection()
    db.close()


def test_an_error_of_sql_does_not_show_what_was_stored(db: Database) -> None:
    """Parameters are prompts and hashes: the text of an exception leaves them out."""
    put(db, "a")
    with pytest.raises(sqlalchemy.exc.IntegrityError) as caught:
        put(db, "a", "a secret")
    assert "a secret" not in str(caught.value)


@pytest.mark.parametrize("limit", [-1, 0, 1001])
def test_a_page_is_bounded(limit: int) -> None:
    """SQLite takes a negative limit for none."""
    with pytest.raises(InvalidField, match="1 to 1000"):
        page_size(limit)
