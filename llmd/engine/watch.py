"""How a worker process is started and watched."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Watch:
    """What is run as the worker, and how soon is done what must be. Others in tests alone."""

    command: tuple[str, ...] = (sys.executable, "-m", "llmd.worker")
    """The descriptor of the worker's socket is added as the last argument."""
    poll_s: float = 1.0
    """How often a silent worker is looked at."""
    restart_after_s: float = 0.5
    kill_after_s: float = 5.0
    """How long a worker has for its end after its socket was closed."""


WATCH = Watch()
