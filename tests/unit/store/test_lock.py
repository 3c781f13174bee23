"""The lock of a daemon on its database."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from llmd.errors import ConfigError
from llmd.store.lock import exclusive_use

HOLD = """
import sys
from llmd.store.lock import exclusive_use
with exclusive_use(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


def hold(url: str) -> subprocess.Popen[str]:
    """Start a process that holds the lock until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "locked\n"
    return process


def test_a_second_daemon_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    """The lock is also found by another path to the file, and a killed process leaves none."""
    url = f"sqlite:///{tmp_path}/llmd.db"
    with hold(url) as first:
        link = tmp_path / "link.db"
        link.symlink_to(tmp_path / "llmd.db")
        for path in (tmp_path / "llmd.db", link):
            with (
                pytest.raises(ConfigError, match="another llmd serves"),
                exclusive_use(f"sqlite:///{path}"),
            ):
                pass
        first.kill()
    with exclusive_use(url):
        pass


def test_commands_can_use_a_locked_database(tmp_path: Path) -> None:
    """The lock is not one of SQLite's, so it stops no other reader or writer."""
    url = f"sqlite:///{tmp_path}/llmd.db"
    with hold(url) as first, closing(sqlite3.connect(tmp_path / "llmd.db")) as other:
        other.execute("CREATE TABLE notes (text)")
        first.kill()


def test_other_databases_are_not_locked() -> None:
    """Several daemons can share one PostgreSQL."""
    with exclusive_use("postgresql://x/y"), exclusive_use("postgresql://x/y"):
        pass
