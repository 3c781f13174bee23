"""How many tokens a second, of late."""

from __future__ import annotations

from collections import deque

WINDOW_S = 10.0


class Rate:
    """The growth of a counter over the last `WINDOW_S` seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, now: float, total: int) -> None:
        """Note the counter's value. One that fell began anew with a new worker."""
        if self._samples and total < self._samples[-1][1]:
            self._samples.clear()
        self._samples.append((now, total))
        while now - self._samples[0][0] > WINDOW_S:
            self._samples.popleft()

    def per_second(self, now: float) -> float:
        """Return the growth a second while there was any; 0 when there was none."""
        # A copy made at once: another thread may be adding.
        recent = self._samples.copy()
        samples = [sample for sample in recent if now - sample[0] <= WINDOW_S]
        if len(samples) < 2:
            return 0.0
        (first_at, first), (last_at, last) = samples[0], samples[-1]
        return (last - first) / (last_at - first_at) if last_at > first_at else 0.0
