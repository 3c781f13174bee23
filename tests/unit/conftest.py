"""The fixtures of unit tests in more than one folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from llmd.store import migrate
from llmd.store.db import Database
from tests.support.service import Service, empty_database
from tests.support.supervisors import Supervise

MakeService = Callable[..., Service]

# A test may be slow because the machine is busy.
hypothesis.settings.register_profile("llmd", deadline=None)
hypothesis.settings.load_profile("llmd")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """Provide an empty database of the newest schema."""
    url = f"sqlite:///{tmp_path}/llmd.db"
    migrate.upgrade(url, now=0)
    database = Database(url)
    yield database
    database.close()


@pytest.fixture(scope="session")
def blank_database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Provide the bytes of a database with the profile `default` and no key."""
    file = tmp_path_factory.mktemp("blank") / "llmd.db"
    empty_database(file)
    return file.read_bytes()


@pytest.fixture
def make_service(tmp_path: Path, blank_database: bytes) -> Iterator[MakeService]:
    """Provide a function that creates services with other settings."""
    services: list[Service] = []

    def make(**kwargs: Any) -> Service:
        folder = tmp_path / f"service{len(services)}"
        folder.mkdir()
        services.append(Service(folder, blank_database, **kwargs))
        return services[-1]

    yield make
    for service in services:
        service.close()


@pytest.fixture
def service(make_service: MakeService) -> Service:
    """Provide a service with two streams and a queue of two."""
    return make_service()


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Supervise]:
    """Provide a function that creates supervisors, and stop all of them."""
    supervise = Supervise(tmp_path)
    yield supervise
    supervise.stop()
