"""`llmd db` on a database of its own."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from llmd.store.db import Database
from llmd.store.keys import Key, Keys
from llmd.store.sessions import NewTurn, Sessions
from tests.support.command_line import llmd, write_config


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Provide a configuration with an empty database."""
    file = write_config(tmp_path)
    assert llmd(file, "db", "upgrade").exit_code == 0
    return file


@pytest.fixture
def db(config: Path) -> Iterator[Database]:
    """Provide the database, with the session 2 of anna."""
    database = Database(f"sqlite:///{config.parent}/llmd.db")
    row = Key(id="anna", name="anna", role="user", hash="x", created_at=1)
    Keys(database).add(row, actor="test")
    turn = NewTurn(user="hi", assistant="to hi", model="m.gguf", created_at=5)
    Sessions(database).append("anna", "2", turn)
    yield database
    database.close()


def test_upgrade_changes_the_schema_once(config: Path, tmp_path: Path) -> None:
    """`db upgrade` at the newest revision does nothing and says so."""
    done = json.loads(llmd(config, "db", "upgrade", "--json").stdout)
    assert done["before"] == done["after"]
    assert done["backup"] is None
    assert llmd(config, "db", "check").stdout == "ok\n"


def test_check_prints_the_faults(config: Path, tmp_path: Path) -> None:
    """`db check` fails with a line for a session whose key is missing."""
    with closing(sqlite3.connect(tmp_path / "llmd.db")) as file, file:
        file.execute("INSERT INTO sessions VALUES (1, 'nobody', '1', '', 0, 0, 0)")
    result = llmd(config, "db", "check")
    assert (result.exit_code, result.stdout) == (
        1,
        "sessions: row 1 refers to a missing row of keys\n",
    )
    shown = llmd(config, "db", "check", "--json")
    assert (shown.exit_code, json.loads(shown.stdout)["ok"]) == (1, False)


def test_a_file_that_is_not_a_database_fails_the_check(config: Path, tmp_path: Path) -> None:
    """`db check` of a damaged file prints a message, not a traceback."""
    for file in tmp_path.glob("llmd.db-*"):
        file.unlink()
    (tmp_path / "llmd.db").write_bytes(b"no database at all" * 100)
    result = llmd(config, "db", "check")
    assert result.exit_code == 1
    assert "the database is damaged" in result.stdout


def test_a_backup_can_be_restored(config: Path, db: Database, tmp_path: Path) -> None:
    """`db restore` brings back what `db backup` wrote, and keeps the replaced database."""
    file = tmp_path / "copy.db"
    assert llmd(config, "db", "backup", str(file)).exit_code == 0
    assert llmd(config, "session", "delete", "2").exit_code == 0
    db.close()
    done = json.loads(llmd(config, "db", "restore", str(file), "--json").stdout)
    assert Path(done["replaced"]).is_file()
    assert llmd(config, "session", "show", "2").exit_code == 0


def test_restore_refuses_while_the_database_is_open(
    config: Path, db: Database, tmp_path: Path
) -> None:
    """`db restore` fails at once while the daemon has the database open."""
    file = tmp_path / "copy.db"
    llmd(config, "db", "backup", str(file))
    with db.read():
        result = llmd(config, "db", "restore", str(file))
    assert result.exit_code == 1
    assert "stop llmd first" in result.stderr


def test_backup_without_a_database_says_init(tmp_path: Path) -> None:
    """`db backup` and `db check` do not create a missing database."""
    config = tmp_path / "llmd.toml"
    config.write_text(f'[store]\nurl = "sqlite:///{tmp_path}/llmd.db"\n')
    for args in (["backup", str(tmp_path / "copy.db")], ["check"]):
        result = llmd(config, "db", *args)
        assert result.exit_code == 78
        assert "run `llmd init`" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["llmd.toml"]
