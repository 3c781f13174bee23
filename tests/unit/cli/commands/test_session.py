"""`llmd session` on a database of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmd.cli.commands import session as session_command
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
    """Provide the database, with the sessions 1 and 2 of anna and 1 of bob."""
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
    """`session list` lists the sessions of every key, or only those of the key in --key."""
    shown = json.loads(llmd(config, "session", "list", "--json").stdout)["sessions"]
    assert [(one["key_id"], one["id"]) for one in shown] == [
        ("anna", "1"),
        ("anna", "2"),
        ("bob", "1"),
    ]
    lines = llmd(config, "session", "list", "--key", "bob").stdout.splitlines()
    assert lines[0].split()[:4] == ["KEY", "OWNER", "ID", "TURNS"]
    assert [line.split()[0] for line in lines[1:]] == ["bob"]


def test_a_name_cannot_control_the_terminal_or_break_the_table(config: Path, db: Database) -> None:
    """The name of a session takes one line without control characters."""
    lines = llmd(config, "session", "list").stdout.splitlines()
    assert len(lines) == 4
    assert lines[2].endswith("evil\\u001b[2J\\nname")


def test_show_prints_every_turn(config: Path, db: Database) -> None:
    """`session show` prints the texts of all turns, the oldest first."""
    output = llmd(config, "session", "show", "--key", "anna", "1").stdout
    words = ["user: first", "llmd: to first", "user: second", "llmd: to second"]
    assert [line for line in output.splitlines() if line in words] == words


def test_an_id_that_several_keys_have_needs_a_key(config: Path, db: Database) -> None:
    """`session show` and `delete` name the keys that have a session with this id."""
    for command in ("show", "delete"):
        result = llmd(config, "session", command, "1")
        assert result.exit_code == 1
        assert "name one with --key: anna, bob" in result.stderr
    assert Sessions(db).count() == 3


def test_an_id_that_only_one_key_has_needs_no_key(config: Path, db: Database) -> None:
    """`session delete` deletes exactly the named session."""
    assert llmd(config, "session", "delete", "2").exit_code == 0
    assert llmd(config, "session", "delete", "1", "--key", "bob").exit_code == 0
    assert [one.id for one in Sessions(db).list("anna")] == ["1"]
    assert Sessions(db).list("bob") == []


@pytest.mark.parametrize("args", [["9"], ["2", "--key", "bob"], ["1", "--key", "eve"], ["a/b"]])
def test_an_unknown_session_is_reported(config: Path, db: Database, args: list[str]) -> None:
    """An unknown session or key causes only an error message."""
    result = llmd(config, "session", "show", *args)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("llmd: cannot show the session: ")


def test_export_writes_one_session_per_line(
    config: Path, db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`session export` writes every session with every turn, however many there are."""
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
    """`session export` leaves an existing file unchanged."""
    before = config.read_text()
    result = llmd(config, "session", "export", str(config))
    assert result.exit_code == 1
    assert result.stderr == f"llmd: cannot export the sessions: {config}: file exists\n"
    assert config.read_text() == before
