"""Fixtures of the end-to-end tests: a daemon that all may ask, and daemons to break."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon, Options, Starter

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def model_file() -> Path:
    """Return the model to test with."""
    named = os.environ.get("LLMD_TEST_MODEL")
    if not named:
        script = _ROOT / "packaging" / "dev" / "model.sh"
        found = subprocess.run([str(script), "--path"], check=True, capture_output=True, text=True)
        named = found.stdout.strip()
    if not Path(named).is_file():
        pytest.fail(
            f"there is no model {named}: run 'make model', or name a GGUF file in LLMD_TEST_MODEL",
            pytrace=False,
        )
    return Path(named).resolve()


@pytest.fixture(scope="session")
def daemon(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Return a daemon that runs for all tests: ask it, but do not break it."""
    shared = Daemon(tmp_path_factory.mktemp("shared"), model_file)
    try:
        shared.start()
        yield shared
        assert shared.stop() == 0
    finally:
        shared.close()
    assert "Traceback" not in shared.log


@pytest.fixture
def start_daemon(model_file: Path, tmp_path: Path) -> Iterator[Starter]:
    """Return a function that starts a daemon of one's own, with options by section."""
    started: list[Daemon] = []

    def start(**options: Options) -> Daemon:
        own = Daemon(tmp_path, model_file, options)
        started.append(own)
        own.start()
        return own

    yield start
    for own in started:
        own.close()
        # Shown by pytest beside a failure.
        print(own.log)  # noqa: T201
        assert "Traceback" not in own.log
