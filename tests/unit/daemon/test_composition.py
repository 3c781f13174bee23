"""The parts of the daemon, created and connected."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmd import config
from llmd.api.app import create_access, create_app, routes
from llmd.config import Config
from llmd.daemon.composition import build
from llmd.errors import EngineFailed
from llmd.store.db import Database


@pytest.fixture
def db(tmp_path: Path, blank_database: bytes) -> Iterator[Database]:
    """Provide a database with the profile `default` and no key."""
    file = tmp_path / "llmd.db"
    file.write_bytes(blank_database)
    database = Database(f"sqlite:///{file}")
    yield database
    database.close()


def test_the_parts_get_their_settings(db: Database, tmp_path: Path) -> None:
    """Each part gets its section of the settings, and all share one database and one engine."""
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


def test_the_application_has_every_route(db: Database) -> None:
    """The application that is built from the parts has every route of the table."""
    settings = Config(auth=config.Auth(argon2="cheapest"))
    services = build(settings, db)
    app = create_app(services, create_access(services, settings.server), settings.server)
    for route in routes(services):
        assert app._router.find(route.path.replace("{", "").replace("}", "")) is not None
