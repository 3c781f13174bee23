"""`llmd session`, `llmd db` and `llmd import-seed` on a database of their own."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from llmd.cli.commands import session as session_command
from llmd.store.db import Database
from llmd.store.keys import Key, Keys
from llmd.store.sessions import NewTurn, Sessions
from tests.support.command_line import llmd

MASTER = "A" * 20


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Give a configuration with an empty database."""
    file = tmp_path / "llmd.toml"
    file.write_text(f'[store]\nurl = "sqlite:///{tmp_path}/llmd.db"\n[auth]\nargon2 = "cheapest"\n')
    assert llmd(file, "db", "upgrade").exit_code == 0
    return file


@pytest.fixture
def db(config: Path) -> Iterator[Database]:
    """Give that database with sessions: anna's 1 and 2, and bob's 1."""
    database = Database(f"sqlite:///{config.parent}/llmd.db")
    keys, sessions = Keys(database), Sessions(database)
    for name in ("anna", "bob"):
        keys.add(Key(id=name, name=name, role="user", hash="x", created_at=1), actor="test")
    for key_id, session_id, user in (
        ("anna", "1", "first"),
        ("anna", "1", "second"),
        ("anna", "2", "evil\x1b[2J\nname"),
        ("bob", "1", "bob's"),
    ):
        turn = NewTurn(user=user, assistant=f"to {user}", model="m.gguf", created_at=5)
        sessions.append(key_id, session_id, turn)
    yield database
    database.close()


def test_list_shows_the_sessions_of_all_keys(config: Path, db: Database) -> None:
    """`session list` has a line a session with its key; --key shows those of one."""
    shown = json.loads(llmd(config, "session", "list", "--json").stdout)["sessions"]
    assert [(one["key_id"], one["id"]) for one in shown] == [
        ("anna", "1"),
        ("anna", "2"),
        ("bob", "1"),
    ]
    lines = llmd(config, "session", "list", "--key", "bob").stdout.splitlines()
    assert lines[0].split()[:4] == ["KEY", "OF", "ID", "TURNS"]
    assert [line.split()[0] for line in lines[1:]] == ["bob"]


def test_a_name_cannot_steer_the_terminal_or_break_the_table(config: Path, db: Database) -> None:
    """Whatever a user called a session, it takes one line without controls."""
    lines = llmd(config, "session", "list").stdout.splitlines()
    assert len(lines) == 4
    assert lines[2].endswith("evil\\u001b[2J\\nname")


def test_show_prints_every_turn(config: Path, db: Database) -> None:
    """`session show` prints who said what, the oldest first."""
    output = llmd(config, "session", "show", "--key", "anna", "1").stdout
    words = ["user: first", "llmd: to first", "user: second", "llmd: to second"]
    assert [line for line in output.splitlines() if line in words] == words


def test_an_id_that_several_keys_have_needs_a_key(config: Path, db: Database) -> None:
    """`session show` and `delete` name the keys among which to choose."""
    for command in ("show", "delete"):
        result = llmd(config, "session", command, "1")
        assert result.exit_code == 1
        assert "name one with --key: anna, bob" in result.stderr
    assert Sessions(db).count() == 3


def test_an_id_that_one_key_has_needs_none(config: Path, db: Database) -> None:
    """`session delete` takes exactly the session that is meant."""
    assert llmd(config, "session", "delete", "2").exit_code == 0
    assert llmd(config, "session", "delete", "1", "--key", "bob").exit_code == 0
    assert [one.id for one in Sessions(db).list("anna")] == ["1"]
    assert Sessions(db).list("bob") == []


@pytest.mark.parametrize("args", [["9"], ["2", "--key", "bob"], ["1", "--key", "eve"], ["a/b"]])
def test_a_session_that_is_not_there_is_told(config: Path, db: Database, args: list[str]) -> None:
    """Neither an unknown session nor an unknown key makes anything but a message."""
    result = llmd(config, "session", "show", *args)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("llmd: cannot show the session: ")


def test_export_writes_a_session_a_line(
    config: Path, db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`session export` writes every session with every turn, over as many pages as there are."""
    monkeypatch.setattr(session_command, "_PAGE", 1)
    file = tmp_path / "out.jsonl"
    assert llmd(config, "session", "export", str(file)).exit_code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(one["key_id"], one["id"], len(one["turns"])) for one in lines] == [
        ("anna", "1", 2),
        ("anna", "2", 1),
        ("bob", "1", 1),
    ]
    assert lines[0]["turns"][1]["assistant"] == "to second"
    assert llmd(config, "session", "export").stdout == file.read_text()
    assert len(llmd(config, "session", "export", "--key", "bob").stdout.splitlines()) == 1


def test_export_overwrites_nothing(config: Path, db: Database) -> None:
    """A file that is there stays as it is."""
    before = config.read_text()
    result = llmd(config, "session", "export", str(config))
    assert result.exit_code == 1
    assert result.stderr == f"llmd: cannot export the sessions: {config}: file exists\n"
    assert config.read_text() == before


def test_upgrade_makes_the_schema_once(config: Path, tmp_path: Path) -> None:
    """`db upgrade` at the newest revision does nothing and says so."""
    done = json.loads(llmd(config, "db", "upgrade", "--json").stdout)
    assert done["before"] == done["after"]
    assert done["backup"] is None
    assert llmd(config, "db", "check").stdout == "ok\n"


def test_check_tells_what_is_wrong(config: Path, tmp_path: Path) -> None:
    """`db check` fails with a line for a turn whose session is gone."""
    with closing(sqlite3.connect(tmp_path / "llmd.db")) as file, file:
        file.execute("INSERT INTO sessions VALUES (1, 'nobody', '1', '', 0, 0, 0)")
    result = llmd(config, "db", "check")
    assert (result.exit_code, result.stdout) == (1, "sessions: row 1 refers to a missing keys\n")
    shown = llmd(config, "db", "check", "--json")
    assert (shown.exit_code, json.loads(shown.stdout)["ok"]) == (1, False)


def test_a_file_that_is_no_database_fails_the_check(config: Path, tmp_path: Path) -> None:
    """`db check` of a damaged file makes a line, not a trace."""
    for file in tmp_path.glob("llmd.db-*"):
        file.unlink()
    (tmp_path / "llmd.db").write_bytes(b"no database at all" * 100)
    result = llmd(config, "db", "check")
    assert result.exit_code == 1
    assert "the database is damaged" in result.stdout


def test_a_backup_comes_back(config: Path, db: Database, tmp_path: Path) -> None:
    """What `db backup` wrote is what `db restore` brings back; the one before is kept."""
    file = tmp_path / "copy.db"
    assert llmd(config, "db", "backup", str(file)).exit_code == 0
    assert llmd(config, "session", "delete", "2").exit_code == 0
    db.close()
    done = json.loads(llmd(config, "db", "restore", str(file), "--json").stdout)
    assert Path(done["replaced"]).is_file()
    assert llmd(config, "session", "show", "2").exit_code == 0


def test_restore_waits_for_nobody(config: Path, db: Database, tmp_path: Path) -> None:
    """While the daemon has the database open `db restore` refuses."""
    file = tmp_path / "copy.db"
    llmd(config, "db", "backup", str(file))
    with db.read():
        result = llmd(config, "db", "restore", str(file))
    assert result.exit_code == 1
    assert "stop llmd first" in result.stderr


def test_backup_without_a_database_says_init(tmp_path: Path) -> None:
    """No command makes an empty database by the way."""
    config = tmp_path / "llmd.toml"
    config.write_text(f'[store]\nurl = "sqlite:///{tmp_path}/llmd.db"\n')
    for args in (["backup", str(tmp_path / "copy.db")], ["check"]):
        result = llmd(config, "db", *args)
        assert result.exit_code == 78
        assert "run `llmd init`" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["llmd.toml"]


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    """Give the three files of a seed."""
    folder = tmp_path / "seed"
    folder.mkdir()
    (folder / "config.json").write_text('{"SelectedModel": "P", "P": {"model": "p.gguf"}}')
    (folder / "api_keys.json").write_text(json.dumps({"0": MASTER, "1": "B" * 20}))
    history = ["Human: hi", "AI: ho", "Human: and", "AI: so"]
    talk = {"Active": 1, "1": {"name": "hi", "history": history}}
    (folder / "sessions.json").write_text(json.dumps(talk))
    return folder


def test_a_seed_is_imported_and_counted(config: Path, seed: Path) -> None:
    """`import-seed` tells what it took over, and never a key."""
    result = llmd(config, "import-seed", str(seed))
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "1 profile, 2 new keys, 1 session, 2 turns\n"
    assert MASTER not in result.output
    shown = json.loads(llmd(config, "session", "show", "1", "--json").stdout)
    assert [turn["user"] for turn in shown["turns"]] == ["hi", "and"]


def test_a_dry_run_counts_and_stores_nothing(config: Path, seed: Path) -> None:
    """`import-seed --dry-run` finds what the import would find, and leaves the store as it was."""
    counts = {"profiles": 1, "keys": 2, "sessions": 1, "turns": 2}
    for _ in range(2):
        shown = json.loads(llmd(config, "import-seed", str(seed), "--dry-run", "--json").stdout)
        assert shown == {"dry_run": True, **counts}
    assert json.loads(llmd(config, "key", "list", "--all", "--json").stdout) == {"keys": []}
    assert llmd(config, "import-seed", str(seed)).exit_code == 0
    result = llmd(config, "import-seed", str(seed), "--dry-run")
    assert result.exit_code == 1
    assert "sessions.json: 1: the master key has a session of this id" in result.stderr


def test_a_wrong_seed_imports_nothing(config: Path, seed: Path) -> None:
    """A fault in the last file keeps the first from being imported."""
    (seed / "sessions.json").write_text('{"1": {"name": "x", "history": ["AI: first"]}}')
    result = llmd(config, "import-seed", str(seed))
    assert result.exit_code == 1
    assert "cannot import the seed: sessions.json: 1.history[0]" in result.stderr
    assert llmd(config, "profile", "show", "P").exit_code == 1
