"""Wait for a condition in another process."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 180.0
"""Timeout in seconds. It is long, so that no test fails because a machine is slow."""


def until(condition: Callable[[], object], what: str, *, every_s: float = 0.02) -> None:
    """Return once `condition` holds; fail with `what` if it does not hold in time."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"still not after {PATIENCE_S:g} s: {what}")
        time.sleep(every_s)
