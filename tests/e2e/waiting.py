"""Wait for what another process does."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 90.0
"""A limit for what takes seconds at most: a slow machine must not fail a test."""


def until(condition: Callable[[], object], what: str, *, every_s: float = 0.02) -> None:
    """Return once `condition` holds; fail with `what` when it does not in time."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"still not after {PATIENCE_S:g} s: {what}")
        time.sleep(every_s)
