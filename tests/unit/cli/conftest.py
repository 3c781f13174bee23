"""The fixtures of the tests of commands that call the daemon."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_daemon import FakeDaemon


@pytest.fixture
def daemon() -> Iterator[FakeDaemon]:
    """Provide a fake daemon that is listening."""
    server = FakeDaemon()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def config(tmp_path: Path, daemon: FakeDaemon) -> Path:
    """Provide a configuration that leads to the fake daemon, with the admin's key next to it."""
    file = tmp_path / "llmd.toml"
    file.write_text(f'[server]\nlisten = ["0.0.0.0:{daemon.server_port}"]\n')
    (tmp_path / "admin.key").write_text("llmd_admin\n")
    return file
