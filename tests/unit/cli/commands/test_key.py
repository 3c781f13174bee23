"""`llmd init` and `llmd key` on a database of their own."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from llmd.auth import secret
from llmd.store.audit import Audit
from llmd.store.db import Database
from llmd.store.keys import Keys
from llmd.store.profiles import Profile, Profiles
from tests.support.command_line import llmd, write_config


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Provide a configuration without a database."""
    return write_config(tmp_path)


@pytest.fixture
def ready(config: Path) -> Path:
    """Provide a configuration after `llmd init`."""
    result = llmd(config, "init", "--key-file", str(config.parent / "admin.key"))
    assert result.exit_code == 0, result.stderr
    return config


def listed(config: Path, *args: str) -> list[dict[str, object]]:
    """Return the keys that `key list --json` prints."""
    shown: list[dict[str, object]] = json.loads(
        llmd(config, "key", "list", "--json", *args).stdout
    )["keys"]
    return shown


def test_init_creates_database_admin_key_and_default_profile(config: Path, tmp_path: Path) -> None:
    """`init` writes the only key of the database to the file, and stores the default profile."""
    file = tmp_path / "admin.key"
    result = llmd(config, "init", "--key-file", str(file), "--name", "anna")
    assert result.exit_code == 0, result.stderr
    text = file.read_text().strip()
    assert text not in result.output
    assert file.stat().st_mode & 0o777 == 0o600
    db = Database(f"sqlite:///{tmp_path}/llmd.db")
    [row] = Keys(db).list()
    assert (row.name, row.role) == ("anna", "admin")
    assert secret.Hasher("cheapest").verify(row.hash, text)
    assert Profiles(db).get("default").profile == Profile()
    assert all(entry.actor.startswith("cli:") for entry in Audit(db).list())
    db.close()


def test_init_shows_the_key_on_a_terminal(config: Path) -> None:
    """On a terminal, `init` without --key-file prints the key once."""
    master, slave = pty.openpty()
    subprocess.run(
        [sys.executable, "-m", "llmd", "--config", str(config), "init"], stdout=slave, check=True
    )
    os.close(slave)
    shown = os.read(master, 4096).decode().split()
    os.close(master)
    assert [secret.parse(word) is not None for word in shown] == [True]


def test_init_without_terminal_needs_a_key_file(config: Path, tmp_path: Path) -> None:
    """`init` neither prints a key into a pipe nor creates anything."""
    result = llmd(config, "init")
    assert result.exit_code == 2
    assert "--key-file" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llmd.toml"]


def test_init_refuses_to_run_twice(ready: Path, tmp_path: Path) -> None:
    """If there is an admin key, `init` fails and creates no file."""
    other = tmp_path / "other.key"
    result = llmd(ready, "init", "--key-file", str(other))
    assert result.exit_code == 1
    assert "there is an admin key already" in result.stderr
    assert not other.exists()
    assert len(listed(ready, "--all")) == 1


@pytest.mark.parametrize("name", ["missing/admin.key", "llmd.toml"])
def test_a_key_file_that_cannot_be_created_leaves_nothing(
    config: Path, tmp_path: Path, name: str
) -> None:
    """If the key file cannot be created, `init` creates no database and changes no file."""
    before = config.read_text()
    result = llmd(config, "init", "--key-file", str(tmp_path / name))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"llmd: cannot set llmd up: {tmp_path / name}: ")
    assert [path.name for path in tmp_path.iterdir()] == ["llmd.toml"]
    assert config.read_text() == before


def test_a_database_that_cannot_be_created_leaves_no_key_file(config: Path, tmp_path: Path) -> None:
    """`init` removes the key file again if the database cannot be created."""
    config.write_text(f'[store]\nurl = "sqlite:///{tmp_path}/missing/llmd.db"\n')
    result = llmd(config, "init", "--key-file", str(tmp_path / "admin.key"))
    assert result.exit_code == 78
    assert [path.name for path in tmp_path.iterdir()] == ["llmd.toml"]


def test_init_keeps_an_existing_default_profile(config: Path, tmp_path: Path) -> None:
    """`init` does not replace a default profile that was set before."""
    assert llmd(config, "db", "upgrade").exit_code == 0
    assert llmd(config, "profile", "set", "default", "top_k=3").exit_code == 0
    assert llmd(config, "init", "--key-file", str(tmp_path / "admin.key")).exit_code == 0
    shown = json.loads(llmd(config, "profile", "show", "default", "--json").stdout)
    assert (shown["top_k"], shown["revision"]) == (3, 1)


def test_commands_do_not_create_a_database(config: Path, tmp_path: Path) -> None:
    """Without a database, `key list` names `llmd init` and exits with status 78."""
    result = llmd(config, "key", "list")
    assert result.exit_code == 78
    assert "llmd.db: run `llmd init`" in result.stderr
    assert not (tmp_path / "llmd.db").exists()


def test_create_prints_only_the_key(ready: Path) -> None:
    """`key create` into a pipe prints only the key, which has the id of the new row."""
    text = llmd(ready, "key", "create", "bob").stdout
    assert text.endswith("\n")
    key = secret.parse(text.strip())
    assert key is not None
    [row] = [row for row in listed(ready) if row["id"] == key.id]
    assert (row["name"], row["role"], row["expires_at"]) == ("bob", "user", None)


@pytest.mark.parametrize(
    ("duration", "seconds"), [("90d", 7_776_000), ("12h", 43_200), ("30m", 1800), ("45", 45)]
)
def test_a_key_may_expire(ready: Path, duration: str, seconds: int) -> None:
    """--expires-in takes days, hours, minutes or seconds."""
    arguments = ("create", "bob", "--role", "admin", "--expires-in", duration, "--json")
    made = json.loads(llmd(ready, "key", *arguments).stdout)
    [row] = [row for row in listed(ready) if row["id"] == made["id"]]
    assert row["role"] == "admin"
    assert row["expires_at"] == made["expires_at"] == int(str(row["created_at"])) + seconds


@pytest.mark.parametrize("duration", ["0", "-1d", "5y", "", "1.5h", "9999999999d", "٣d"])
def test_a_malformed_duration_is_wrong_usage(ready: Path, duration: str) -> None:
    """A duration that cannot be read, or is too long, creates no key."""
    result = llmd(ready, "key", "create", "bob", f"--expires-in={duration}")
    assert result.exit_code == 2
    assert "90d, 12h or seconds" in result.stderr
    assert len(listed(ready)) == 1


def test_list_shows_no_hash(ready: Path) -> None:
    """Neither the table nor the JSON of `key list` contains a hash."""
    for more in ([], ["--json"]):
        output = llmd(ready, "key", "list", *more).stdout
        assert "argon2" not in output
        assert "hash" not in output
        assert "digest" not in output


def test_a_revoked_key_is_listed_only_with_all(ready: Path) -> None:
    """A revoked key is missing from `key list`, and marked in `key list --all`."""
    made = json.loads(llmd(ready, "key", "create", "bob", "--json").stdout)
    assert llmd(ready, "key", "revoke", made["id"]).exit_code == 0
    assert [row["name"] for row in listed(ready)] == ["admin"]
    assert sorted(str(row["name"]) for row in listed(ready, "--all")) == ["admin", "bob"]
    assert "bob    user   revoked" in llmd(ready, "key", "list", "--all").stdout


def test_the_last_admin_key_stays(ready: Path) -> None:
    """`key revoke` refuses to revoke the last valid admin key."""
    [row] = listed(ready)
    result = llmd(ready, "key", "revoke", str(row["id"]))
    assert result.exit_code == 1
    assert result.stderr.startswith("llmd: cannot revoke the key: this is the last valid admin key")
    assert listed(ready)[0]["revoked_at"] is None


def test_an_unknown_key_cannot_be_revoked(ready: Path) -> None:
    """`key revoke` with an unknown id fails with an error message."""
    result = llmd(ready, "key", "revoke", "nobody")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no key has this id" in result.stderr


def test_a_bad_name_creates_no_key(ready: Path) -> None:
    """A name with control characters is refused before a key is created."""
    result = llmd(ready, "key", "create", "a\x1b[2J")
    assert result.exit_code == 1
    assert "printable characters" in result.stderr
    assert len(listed(ready)) == 1


def test_a_database_of_a_newer_llmd_is_refused(ready: Path, tmp_path: Path) -> None:
    """An unknown revision is reported, with exit status 78."""
    db = Database(f"sqlite:///{tmp_path}/llmd.db")
    with db.write() as tx:
        tx.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    db.close()
    result = llmd(ready, "key", "list")
    assert result.exit_code == 78
    assert "the database is newer (revision 9999)" in result.stderr
