"""Backups of a live database, and restoring them."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from llmd.errors import ConfigError, Conflict, ImportRefused, SchemaError, StoreUnavailable
from llmd.store import migrate
from llmd.store.backup import backup, restore
from llmd.store.db import Database
from llmd.store.keys import Key, Keys
from llmd.store.sessions import NewTurn, Sessions


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Return the URL of a database with one key and one turn."""
    folder = tmp_path / "var"
    folder.mkdir()
    url = f"sqlite:///{folder}/llmd.db"
    migrate.upgrade(url, now=0)
    db = Database(url)
    Keys(db).add(Key(id="A", name="A", role="user", hash="h", created_at=0), actor="cli")
    db.close()
    append(url, "first")
    return url


@pytest.fixture
def db(url: str) -> Iterator[Database]:
    """Provide that database, open as in a running daemon."""
    database = Database(url)
    database.check()
    yield database
    database.close()


def append(url: str, text: str) -> None:
    """Store a turn."""
    db = Database(url)
    Sessions(db).append("A", 1, NewTurn(user=text, assistant="", created_at=0))
    db.close()


def prompts(url: str) -> list[str]:
    """Return the prompts of the stored turns."""
    db = Database(url)
    found = [turn.user for turn in Sessions(db).history("A", 1, 1000)[1]]
    db.close()
    return found


def test_a_backup_is_one_private_file_with_everything(
    url: str, db: Database, tmp_path: Path
) -> None:
    """A backup is a private file that includes commits that are still only in the log."""
    Sessions(db).append("A", 1, NewTurn(user="second", assistant="", created_at=0))
    backup(url, tmp_path / "copy.db")
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600
    assert prompts(f"sqlite:///{tmp_path}/copy.db") == ["first", "second"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.db", "var"]


def test_a_backup_under_load_holds_every_turn_acknowledged_before_it(
    url: str, db: Database, tmp_path: Path
) -> None:
    """A backup made during writes is intact and has every turn acknowledged before it."""
    sessions, stop = Sessions(db), threading.Event()
    acknowledged = [1]

    def write() -> None:
        while not stop.is_set():
            new = NewTurn(user="x" * 300, assistant="", created_at=0)
            acknowledged[0] = sessions.append("A", 1, new).seq

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for number in range(5):
            before = acknowledged[0]
            file = tmp_path / f"copy{number}.db"
            backup(url, file)
            with closing(sqlite3.connect(file)) as copy:
                assert copy.execute("SELECT max(seq) FROM turns").fetchone()[0] >= before
                assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    finally:
        stop.set()
        thread.join()


def test_a_backup_overwrites_nothing(url: str, tmp_path: Path) -> None:
    """An existing file or broken link at the target is left unchanged."""
    (tmp_path / "there").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("there", "link"):
        with pytest.raises(Conflict):
            backup(url, tmp_path / name)
    assert (tmp_path / "there").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_a_failed_backup_leaves_no_file(url: str, tmp_path: Path) -> None:
    """A missing folder, or a missing or damaged database, is an error and leaves no file."""
    with pytest.raises(StoreUnavailable):
        backup(url, tmp_path / "no-folder" / "copy.db")
    with pytest.raises(StoreUnavailable):
        backup(f"sqlite:///{tmp_path}/missing.db", tmp_path / "copy.db")
    (tmp_path / "var" / "llmd.db").write_bytes(b"no database" * 1000)
    with pytest.raises(SchemaError):
        backup(url, tmp_path / "copy.db")
    assert [path.name for path in tmp_path.iterdir()] == ["var"]


def test_a_damaged_copy_is_not_kept(url: str, tmp_path: Path) -> None:
    """A copy is checked, so damage that can be copied is found."""
    path = tmp_path / "var" / "llmd.db"
    data = bytearray(path.read_bytes())
    data[4096 * 3 : 4096 * 3 + 64] = bytes(64)
    path.write_bytes(data)
    with pytest.raises(SchemaError, match="the copy is damaged"):
        backup(url, tmp_path / "copy.db")
    assert [path.name for path in tmp_path.iterdir()] == ["var"]


def test_only_sqlite_is_copied(tmp_path: Path) -> None:
    """Backup and restore refuse a database that is not SQLite."""
    with pytest.raises(ConfigError, match="SQLite only"):
        backup("postgresql://host/llmd", tmp_path / "copy.db")
    with pytest.raises(ConfigError, match="SQLite only"):
        restore("postgresql://host/llmd", tmp_path / "copy.db", now=0)


def test_restoring_keeps_the_replaced_database(url: str, tmp_path: Path) -> None:
    """The replaced database can still be opened, and the restored one is private."""
    backup(url, tmp_path / "copy.db")
    append(url, "second")
    aside = restore(url, tmp_path / "copy.db", now=0)
    assert prompts(url) == ["first"]
    assert aside == tmp_path / "var" / "llmd.db.19700101T000000Z.replaced"
    assert prompts(f"sqlite:///{aside}") == ["first", "second"]
    assert (tmp_path / "var" / "llmd.db").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in (tmp_path / "var").iterdir()) == [
        "llmd.db",
        "llmd.db.19700101T000000Z.replaced",
    ]


def test_a_damaged_database_can_be_replaced(url: str, db: Database, tmp_path: Path) -> None:
    """The log of a crash is moved with its database and is not applied to the restored one."""
    backup(url, tmp_path / "copy.db")
    Sessions(db).append("A", 1, NewTurn(user="second", assistant="", created_at=0))
    folder = tmp_path / "var"
    log = (folder / "llmd.db-wal").read_bytes()
    db.close()
    (folder / "llmd.db").write_bytes(b"no database" * 1000)
    (folder / "llmd.db-wal").write_bytes(log)
    aside = restore(url, tmp_path / "copy.db", now=0)
    assert aside is not None
    left = {path.name for path in folder.iterdir()}
    assert not left & {"llmd.db-wal", "llmd.db-shm"}
    assert {"llmd.db", aside.name, f"{aside.name}-wal"} <= left
    assert prompts(url) == ["first"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_files_created_by_root_belong_to_the_daemon(tmp_path: Path) -> None:
    """A database created by root has the owner of its folder or of the database it replaces."""
    folder = tmp_path / "owned"
    folder.mkdir()
    os.chown(folder, 4321, 4321)
    url = f"sqlite:///{folder}/llmd.db"
    migrate.upgrade(url, now=0)
    assert (folder / "llmd.db").stat().st_uid == 4321
    backup(url, tmp_path / "copy.db")
    restore(url, tmp_path / "copy.db", now=0)
    assert (folder / "llmd.db").stat().st_uid == 4321


def test_a_missing_database_can_be_restored(url: str, tmp_path: Path) -> None:
    """If there is no database, restoring moves nothing."""
    backup(url, tmp_path / "copy.db")
    other = f"sqlite:///{tmp_path}/other.db"
    assert restore(other, tmp_path / "copy.db", now=0) is None
    assert prompts(other) == ["first"]


def test_a_log_without_a_database_is_moved_too(url: str, db: Database, tmp_path: Path) -> None:
    """A log whose database was deleted is not applied to the restored one."""
    backup(url, tmp_path / "copy.db")
    Sessions(db).append("A", 1, NewTurn(user="second", assistant="", created_at=0))
    log = (tmp_path / "var" / "llmd.db-wal").read_bytes()
    db.close()
    (tmp_path / "var" / "llmd.db").unlink()
    (tmp_path / "var" / "llmd.db-wal").write_bytes(log)
    restore(url, tmp_path / "copy.db", now=0)
    assert prompts(url) == ["first"]


def test_a_database_in_use_is_not_replaced(url: str, db: Database, tmp_path: Path) -> None:
    """While a daemon has the database open, even idle, nothing is changed."""
    backup(url, tmp_path / "copy.db")
    Sessions(db).append("A", 1, NewTurn(user="second", assistant="", created_at=0))
    with pytest.raises(Conflict, match="stop llmd"):
        restore(url, tmp_path / "copy.db", now=0)
    assert len(Sessions(db).turns("A", 1)) == 2
    db.close()
    restore(url, tmp_path / "copy.db", now=0)
    assert prompts(url) == ["first"]


def test_only_an_intact_database_of_llmd_is_restored(url: str, tmp_path: Path) -> None:
    """A missing, foreign, empty or damaged file is refused, and nothing is changed."""
    backup(url, tmp_path / "damaged")
    data = bytearray((tmp_path / "damaged").read_bytes())
    data[4096 * 3 : 4096 * 3 + 64] = bytes(64)
    (tmp_path / "damaged").write_bytes(data)
    (tmp_path / "text").write_text("hello " * 1000)
    (tmp_path / "empty").touch()
    with closing(sqlite3.connect(tmp_path / "recipes")) as file:
        file.execute("CREATE TABLE recipes (id)")
    for name in ("missing", "damaged", "text", "empty", "recipes"):
        with pytest.raises(ImportRefused, match=name):
            restore(url, tmp_path / name, now=0)
    assert prompts(url) == ["first"]
    assert [path.name for path in (tmp_path / "var").iterdir()] == ["llmd.db"]


def test_a_backup_of_a_newer_llmd_is_refused(url: str, tmp_path: Path) -> None:
    """A backup whose revision this version does not know is refused."""
    backup(url, tmp_path / "copy.db")
    with closing(sqlite3.connect(tmp_path / "copy.db")) as file, file:
        file.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaError, match="newer"):
        restore(url, tmp_path / "copy.db", now=0)
    assert prompts(url) == ["first"]
