"""The fixtures that more than one file of the use cases' tests needs."""

from __future__ import annotations

import pytest

from tests.support.retries_harness import RetriesHarness
from tests.support.service import Service


@pytest.fixture
def harness(service: Service) -> RetriesHarness:
    """Return a harness for retries over a service."""
    return RetriesHarness(service)
