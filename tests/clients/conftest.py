"""Fixtures for the tests with third-party clients: a shared daemon, and OpenAI's client."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from tests.clients.sdk import MODEL, NUM_TOKENS, connect
from tests.e2e.conftest import model_file, start_daemon
from tests.e2e.daemon import Daemon

__all__ = ["model_file", "start_daemon"]


@pytest.fixture(scope="session", autouse=True)
def _only_this_machine() -> Iterator[None]:
    """Hide environment variables that name proxies, other servers or tracing from the clients."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(("OPENAI_", "LANGCHAIN_", "LANGSMITH_")):
                patch.delenv(name)
        for name in ("NO_PROXY", "no_proxy"):
            patch.setenv(name, "127.0.0.1")
        patch.setenv("LANGSMITH_TRACING", "false")
        yield


@pytest.fixture(scope="session")
def daemon(
    _only_this_machine: None, model_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    """Provide a daemon that all tests share; they must not stop it or change its settings."""
    shared = Daemon(tmp_path_factory.mktemp("clients"), model_file)
    try:
        shared.start()
        shared.put_profile(MODEL, temperature=0, max_tokens=NUM_TOKENS)
        yield shared
        assert shared.stop() == 0
    finally:
        shared.close()
    assert "Traceback" not in shared.log


@pytest.fixture(scope="session")
def client(daemon: Daemon) -> Iterator[OpenAI]:
    """Provide OpenAI's client with the admin's key."""
    with connect(daemon) as client:
        yield client
