from __future__ import annotations

import pytest

from tests.support.fake_keys import GateHarness


@pytest.fixture
def harness() -> GateHarness:
    """Return a gate over an empty key store."""
    return GateHarness()
