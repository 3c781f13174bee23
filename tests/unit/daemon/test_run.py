"""How the daemon opens its database."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
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


ON_A_FULL_DISK = """
import logging, resource, sys
from llmd.daemon.run import open_database
from llmd.errors import StoreError
from llmd.store.settings import Settings

logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout)
# No file can grow beyond 16 bytes. Writing then fails like on a full disk.
resource.setrlimit(resource.RLIMIT_FSIZE, (16, resource.RLIM_INFINITY))
try:
    db = open_database(sys.argv[1])
except StoreError as error:
    sys.exit(error.message)
settings = Settings(db)
print("read", settings.selection().profile, settings.selection().model)
try:
    settings.select(model=None, profile="default", actor="x", now=1)
except StoreError as error:
    print(type(error).__name__)
print("read", settings.selection().profile, settings.selection().model)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print("wrote", settings.select(model="a.gguf", profile="default", actor="x", now=1).model)
db.close()
"""


def on_a_full_disk(file: Path) -> subprocess.CompletedProcess[str]:
    """Open a database in a process that can write nothing at first."""
    return subprocess.run(
        [sys.executable, "-c", ON_A_FULL_DISK, url_of(file)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_database_on_a_full_disk_is_read(file: Path) -> None:
    """The daemon says that there is no space, reads, and writes again once there is some."""
    done = on_a_full_disk(file)
    assert done.returncode == 0, done
    said, *lines = done.stdout.splitlines()
    assert said.startswith("ERROR no space is left for the database")
    assert lines == ["read default None", lines[1], "read default None", "wrote a.gguf"]
    assert lines[1] in {"StoreFull", "StoreUnavailable"}
    db = open_database(url_of(file))
    assert Settings(db).selection().model == "a.gguf"
    db.close()


def test_what_a_crash_left_in_the_log_is_read_on_a_full_disk(file: Path) -> None:
    """Changes that are only in the write-ahead log are found without writing a file."""
    crash = "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute(sys.argv[2]); "
    change = """INSERT INTO settings VALUES ('selection', '{"model": "b.gguf"}', 1)"""
    subprocess.run(
        [sys.executable, "-c", crash + "db.commit(); os._exit(0)", str(file), change], check=True
    )
    assert Path(f"{file}-wal").stat().st_size > 0
    done = on_a_full_disk(file)
    assert done.returncode == 0, done
    assert "read default b.gguf" in done.stdout


def test_a_full_disk_has_no_space_for_a_new_database(tmp_path: Path) -> None:
    """Without a database that can be read, a start on a full disk fails and says why."""
    done = on_a_full_disk(tmp_path / "new.db")
    assert done.returncode == 1
    assert "the database" in done.stderr
    assert "Traceback" not in done.stderr
