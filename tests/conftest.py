"""Fixtures with the real daemon: one that all tests share, and daemons of a test's own."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon, Options, Starter
from tests.support.made_model import MadeModels, made_model
from tests.support.short_model import write_short_model

_ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def model_file() -> Path:
    """Return the GGUF file to test with."""
    named = os.environ.get("LLMD_TEST_MODEL")
    if not named:
        script = _ROOT / "packaging" / "dev" / "model.sh"
        found = subprocess.run([str(script), "--path"], check=True, capture_output=True, text=True)
        named = found.stdout.strip()
    if not Path(named).is_file():
        pytest.fail(
            f"{named} does not exist: run 'make model', or set LLMD_TEST_MODEL to a GGUF file",
            pytrace=False,
        )
    return Path(named).resolve()


@pytest.fixture(scope="session")
def made_models(tmp_path_factory: pytest.TempPathFactory) -> MadeModels:
    """Return a function that makes a tiny model of a kind, once, and returns its file."""
    folder = tmp_path_factory.mktemp("made")
    return functools.cache(lambda kind: made_model(kind, folder))


@pytest.fixture(scope="session")
def daemon(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Provide the daemon that all tests share. Tests may send requests, but must not break it."""
    shared = Daemon(tmp_path_factory.mktemp("shared"), model_file)
    try:
        shared.start()
        yield shared
        assert shared.stop() == 0
    finally:
        shared.close()
    assert "Traceback" not in shared.log


@pytest.fixture(scope="session")
def short_model_file(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with the first two layers of the model, for tests where any text will do."""
    file = tmp_path_factory.mktemp("short") / "short.gguf"
    write_short_model(model_file, file, num_layers=2)
    return file


@pytest.fixture
def start_daemon(short_model_file: Path, tmp_path: Path) -> Iterator[Starter]:
    """Provide a function that starts a daemon for this test, with options by section.

    Unless a `model` is given, the daemon has the short one, which loads and computes fast. With
    `begin=False` the daemon is only made: a test may add files before it starts it.
    """
    started: list[Daemon] = []

    def start(model: Path = short_model_file, *, begin: bool = True, **options: Options) -> Daemon:
        own = Daemon(tmp_path, model, options)
        started.append(own)
        if begin:
            own.start()
        return own

    yield start
    for own in started:
        own.close()
        # pytest shows the log if the test fails.
        print(own.log)  # noqa: T201
        assert "Traceback" not in own.log
