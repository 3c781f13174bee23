"""How the parts are made and joined."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmd import config
from llmd.api.app import create_access, create_app, routes
from llmd.config import Config
from llmd.daemon.run import build, open_database
from llmd.errors import EngineFailed, SchemaError
from llmd.store.db import Database
from llmd.store.settings import Settings


def url_of(file: Path) -> str:
    """Return the URL of a database file."""
    return f"sqlite:///{file}"


@pytest.fixture
def file(tmp_path: Path, blank_database: bytes) -> Path:
    """Give the file of a good database."""
    made = tmp_path / "llmd.db"
    made.write_bytes(blank_database)
    return made


@pytest.fixture
def db(file: Path) -> Iterator[Database]:
    """Give that database, opened."""
    made = open_database(url_of(file))
    yield made
    made.close()


def test_a_new_database_gets_the_present_schema(tmp_path: Path) -> None:
    """The daemon makes what is not there."""
    db = open_database(url_of(tmp_path / "new.db"))
    assert Settings(db).selection().profile == "default"
    db.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """And left as it is."""
    file = tmp_path / "llmd.db"
    file.write_bytes(b"not a database " * 100)
    before = file.read_bytes()
    with pytest.raises(SchemaError, match="llmd db restore"):
        open_database(url_of(file))
    assert file.read_bytes() == before


def test_a_database_with_a_damaged_page_is_refused(file: Path) -> None:
    """Before anything is served from it; the message says how to mend it."""
    raw = bytearray(file.read_bytes())
    page = int.from_bytes(raw[16:18])
    for start in range(page, len(raw) - page, 2 * page):
        raw[start : start + 100] = b"\xa5" * 100
    file.write_bytes(raw)
    with pytest.raises(SchemaError, match="llmd db restore"):
        open_database(url_of(file))


def test_a_database_whose_rows_do_not_fit_together_is_refused(file: Path) -> None:
    """A session without its key is a sign of damage too."""
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
    """An older llmd must not write into it."""
    db = Database(url_of(file))
    with db.write() as tx:
        tx.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    db.close()
    with pytest.raises(SchemaError, match="newer"):
        open_database(url_of(file))


def test_a_database_of_this_version_is_opened_as_it_is(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No upgrade, and no copy that would fill the disk start by start."""
    caplog.set_level(logging.INFO)
    open_database(url_of(file)).close()
    assert "upgraded" not in caplog.text
    assert [found.name for found in file.parent.glob("*.bak")] == []


def test_the_parts_are_made_of_their_settings(db: Database, tmp_path: Path) -> None:
    """Each gets its section, and all share one store and one engine."""
    settings = Config(
        server=config.Server(max_streams=3, max_queue=5),
        models=config.Models(dir=str(tmp_path / "models")),
        auth=config.Auth(argon2="cheapest"),
    )
    services = build(settings, db)
    assert (services.admission.max_streams, services.admission.max_queue) == (3, 5)
    assert services.library.list() == []
    key, text = services.issuer.issue("boss", "admin", expires_in_s=None, actor="cli", now=1)
    assert services.gate.check(text, "127.0.0.1").id == key.id
    services.selector.start()
    with pytest.raises(EngineFailed, match="llmd model add"):
        services.engine.check_ready()
    services.engine.close()


def test_the_application_is_made_of_the_parts(db: Database) -> None:
    """Every route of the table is there."""
    settings = Config(auth=config.Auth(argon2="cheapest"))
    services = build(settings, db)
    app = create_app(services, create_access(services, settings.server), settings.server)
    for route in routes(services):
        assert app._router.find(route.path.replace("{", "").replace("}", "")) is not None
