"""A model file and the states of loading it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field


class State(enum.Enum):
    """Whether the model of a supervisor can serve requests."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Model:
    """A model file with the name that users see; `check` validates the file before each load."""

    name: str
    path: str
    check: Callable[[], object] = field(default=lambda: None, compare=False)
