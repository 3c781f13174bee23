"""The fixtures that more than one file of unit tests needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from llmd.store import migrate
from llmd.store.db import Database
from tests.support.fake_keys import House
from tests.support.service import Service, empty_database
from tests.support.supervisors import Supervise

MakeService = Callable[..., Service]

# A busy machine is no fault of the code.
hypothesis.settings.register_profile("llmd", deadline=None)
hypothesis.settings.load_profile("llmd")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """Give an empty database of the newest schema."""
    url = f"sqlite:///{tmp_path}/llmd.db"
    migrate.upgrade(url, now=0)
    database = Database(url)
    yield database
    database.close()


@pytest.fixture(scope="session")
def blank_database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Give the bytes of a database that has the profile `default` and no key."""
    file = tmp_path_factory.mktemp("blank") / "llmd.db"
    empty_database(file)
    return file.read_bytes()


@pytest.fixture
def make_service(tmp_path: Path, blank_database: bytes) -> Iterator[MakeService]:
    """Give what makes a service with other settings."""
    made: list[Service] = []

    def make(**kwargs: Any) -> Service:
        folder = tmp_path / f"service{len(made)}"
        folder.mkdir()
        made.append(Service(folder, blank_database, **kwargs))
        return made[-1]

    yield make
    for service in made:
        service.close()


@pytest.fixture
def service(make_service: MakeService) -> Service:
    """Give a service with two streams and a queue of two."""
    return make_service()


@pytest.fixture
def house() -> House:
    """Return an empty house."""
    return House()


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Supervise]:
    """Give a maker of supervisors, and stop them all."""
    supervise = Supervise(tmp_path)
    yield supervise
    supervise.stop()
