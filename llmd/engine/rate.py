"""The recent rate of a counter."""

from __future__ import annotations

from collections import deque

WINDOW_S = 10.0
"""Length of the time over which a rate is averaged."""


class Rate:
    """The growth of a counter per second, over the last `WINDOW_S` seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, now: float, total: int) -> None:
        """Record the value of the counter. A value that fell is the first one of a new worker."""
        if self._samples and total < self._samples[-1][1]:
            self._samples.clear()
        self._samples.append((now, total))
        while now - self._samples[0][0] > WINDOW_S:
            self._samples.popleft()

    def per_second(self, now: float) -> float:
        """Return the growth per second between the first and the last recent value."""
        # Copying a deque is atomic; another thread may be adding a sample.
        recent = self._samples.copy()
        samples = [sample for sample in recent if now - sample[0] <= WINDOW_S]
        if len(samples) < 2:
            return 0.0
        (first_at, first), (last_at, last) = samples[0], samples[-1]
        return (last - first) / (last_at - first_at) if last_at > first_at else 0.0
