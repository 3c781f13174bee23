"""How often a worker has died lately."""

from __future__ import annotations

import time
from collections import deque

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
