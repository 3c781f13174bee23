"""A model as the engine knows it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field


class State(enum.Enum):
    """What a supervisor's model can do now."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Model:
    """A model file, the name by which people know it, and what checks it before each start."""

    name: str
    path: str
    check: Callable[[], object] = field(default=lambda: None, compare=False)
