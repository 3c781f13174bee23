"""Limits for a worker: how long a step may take, and how often a worker may die."""

from __future__ import annotations

import time
from collections import deque

import msgspec

from llmd.engine.protocol import Start

STALL_STEPS = 10
"""A step that takes so many times the longest to be expected is a hang."""

MAX_DEATHS = 3
DEATHS_WITHIN_S = 300.0
"""So many deaths in so short a time: it would die again. The model waits to be loaded anew."""


class StallLimit:
    """The steps of one worker, with up to `max_tokens` tokens each."""

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._longest_s = 0.0
        self._token_s = 0.0

    def add(self, step_s: float, num_tokens: int) -> None:
        """Note a step: how long it took, for how many tokens."""
        self._longest_s = max(self._longest_s, step_s)
        token_s = step_s / max(1, num_tokens)
        self._token_s = min(self._token_s or token_s, token_s)

    def limit_s(self) -> float | None:
        """Return after which time a step is a hang; None before the first one.

        A step for one token tells of a full one only what it costs a token.
        """
        if not self._longest_s:
            return None
        return STALL_STEPS * max(self._longest_s, self._token_s * self._max_tokens)


class RecentDeaths:
    """Count the last deaths of one model's workers."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=MAX_DEATHS)

    def add(self) -> bool:
        """Note a death; tell whether there were too many."""
        self._times.append(time.monotonic())
        full = len(self._times) == MAX_DEATHS
        return full and self._times[-1] - self._times[0] <= DEATHS_WITHIN_S


def without_variant(start: Start, variant: str) -> Start | None:
    """Return `start` for a worker without this CPU code, of which the last one died.

    None when it is unknown or avoided already. llama.cpp asks what the processor can do, not what
    its system or hypervisor lets it do.
    """
    if not variant or variant in start.avoid_variants:
        return None
    return msgspec.structs.replace(start, avoid_variants=[*start.avoid_variants, variant])
