"""How the daemon opens its database."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import pytest

from llmd.daemon.run import open_database
from llmd.errors import SchemaError
from llmd.store.db import Database
from llmd.store.settings import Settings


def url_of(file: Path) -> str:
    """Return the URL of a database file."""
    return f"sqlite:///{file}"


@pytest.fixture
def file(tmp_path: Path, blank_database: bytes) -> Path:
    """Provide the file of a valid database."""
    path = tmp_path / "llmd.db"
    path.write_bytes(blank_database)
    return path


def test_a_missing_database_is_created(tmp_path: Path) -> None:
    """The daemon creates a missing database with the present schema."""
    db = open_database(url_of(tmp_path / "new.db"))
    assert Settings(db).selection().profile == "default"
    db.close()


def test_a_file_that_is_not_a_database_is_refused(tmp_path: Path) -> None:
    """A file that is not a database is refused and left unchanged."""
    file = tmp_path / "llmd.db"
    file.write_bytes(b"not a database " * 100)
    before = file.read_bytes()
    with pytest.raises(SchemaError, match="llmd db restore"):
        open_database(url_of(file))
    assert file.read_bytes() == before


def test_a_database_with_a_damaged_page_is_refused(file: Path) -> None:
    """A damaged page is found before the daemon serves, and the message says how to restore."""
    raw = bytearray(file.read_bytes())
    page = int.from_bytes(raw[16:18])
    for start in range(page, len(raw) - page, 2 * page):
        raw[start : start + 100] = b"\xa5" * 100
    file.write_bytes(raw)
    with pytest.raises(SchemaError, match="llmd db restore"):
        open_database(url_of(file))


def test_a_database_with_inconsistent_rows_is_refused(file: Path) -> None:
    """A session whose key is missing counts as damage."""
    raw = sqlite3.connect(file)
    raw.execute("PRAGMA foreign_keys = OFF")
    columns = [row[1] for row in raw.execute("PRAGMA table_info(sessions)")]
    values = {"pk": 1, "key_id": "nobody", "id": "1", "name": "x", "num_turns": 0}
    row = [values.get(column, 0) for column in columns]
    raw.execute(f"INSERT INTO sessions VALUES ({', '.join('?' * len(row))})", row)
    raw.commit()
    raw.close()
    with pytest.raises(SchemaError, match="llmd db restore"):
        open_database(url_of(file))


def test_a_newer_database_is_refused(file: Path) -> None:
    """A database of a newer llmd is refused, because an older one must not write to it."""
    db = Database(url_of(file))
    with db.write() as tx:
        tx.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    db.close()
    with pytest.raises(SchemaError, match="newer"):
        open_database(url_of(file))


def test_a_database_of_this_version_is_not_upgraded(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A start without an upgrade makes no backup, which would fill the disk in time."""
    caplog.set_level(logging.INFO)
    open_database(url_of(file)).close()
    assert "upgraded" not in caplog.text
    assert [found.name for found in file.parent.glob("*.bak")] == []
