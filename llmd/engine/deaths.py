"""How often a worker has died lately, and of what."""

from __future__ import annotations

import time
from collections import deque

import msgspec

from llmd.engine.protocol import Start

MAX_DEATHS = 3
DEATHS_WITHIN_S = 300.0
"""So many deaths in so short a time: it would die again. The model waits to be loaded anew."""


class Deaths:
    """Count the last deaths of one model's workers."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=MAX_DEATHS)

    def add(self) -> bool:
        """Note a death; tell whether there were too many."""
        self._times.append(time.monotonic())
        full = len(self._times) == MAX_DEATHS
        return full and self._times[-1] - self._times[0] <= DEATHS_WITHIN_S


def avoiding(start: Start, variant: str) -> Start | None:
    """Return `start` for a worker without this CPU code, of which the last one died.

    None when it is unknown or avoided already. llama.cpp asks what the processor can do, not what
    its system or hypervisor lets it do.
    """
    if not variant or variant in start.avoid_variants:
        return None
    return msgspec.structs.replace(start, avoid_variants=[*start.avoid_variants, variant])
