"""Fixtures for the tests with third-party clients: a shared daemon, and OpenAI's client."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from openai import OpenAI

from tests.clients.sdk import MODEL, NUM_TOKENS, connect
from tests.e2e.daemon import Daemon


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
def daemon(daemon: Daemon) -> Daemon:
    """Return the daemon that all tests share, with the profile of these tests."""
    daemon.put_profile(MODEL, temperature=0, max_tokens=NUM_TOKENS)
    return daemon


@pytest.fixture(scope="session")
def client(daemon: Daemon) -> Iterator[OpenAI]:
    """Provide OpenAI's client with the admin's key."""
    with connect(daemon) as client:
        yield client
