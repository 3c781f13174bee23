"""The fixtures of the tests of the HTTP server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.echo_server import Running


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """Provide an HTTP server on a real socket, one for all tests of a file."""
    made = Running()
    yield made
    made.forget_clients()
    made.stop()
