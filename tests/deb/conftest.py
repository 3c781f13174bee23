"""Booted machines, one per release and test module. LLMD_DEB_SUITES names the releases."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deb.machine import Machine, why_not
from tests.deb.next import BROKEN, GOOD, make_next

DIST = Path(__file__).parents[2] / "dist"
SUITES = os.environ.get("LLMD_DEB_SUITES", "bookworm trixie").split()


@pytest.fixture(scope="session", autouse=True)
def able() -> None:
    """Fail at once with the reason if no machine can be booted."""
    reason = why_not()
    if reason:
        pytest.fail(reason)


@pytest.fixture(scope="session", params=SUITES)
def suite(request: pytest.FixtureRequest) -> str:
    """Return the name of a release."""
    return str(request.param)


@pytest.fixture(scope="session")
def debs(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the packages, and two later ones: one has a broken migration."""
    folder = tmp_path_factory.mktemp(f"debs-{suite}")
    for deb in (DIST / suite).glob("*.deb"):
        shutil.copy2(deb, folder / deb.name)
    [package] = folder.glob("llmd_*_amd64.deb")
    make_next(package, folder, "0.2.0-1", GOOD).rename(folder / "next.deb")
    make_next(package, folder, "0.3.0-1", GOOD, BROKEN).rename(folder / "broken.deb")
    package.rename(folder / "llmd.deb")
    [model] = folder.glob("llmd-model*.deb")
    model.rename(folder / "model.deb")
    return folder


@pytest.fixture(scope="module")
def machine(suite: str, debs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Provide a freshly booted machine without llmd."""
    made = Machine(suite, tmp_path_factory.mktemp(f"machine-{suite}"), debs)
    yield made
    made.close()


@pytest.fixture(scope="module")
def installed(machine: Machine) -> Machine:
    """Return a machine on which the packages were just installed."""
    machine.run("apt-get install -y /opt/debs/llmd.deb /opt/debs/model.deb", timeout_s=300)
    return machine
