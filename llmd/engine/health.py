"""Limits for a worker: how long a step may take, and how often a worker may die."""

from __future__ import annotations

import time
from collections import deque

import msgspec

from llmd.engine.protocol import Start

STALL_STEPS = 10
"""A step that takes this many times as long as the longest one to be expected is a hang."""

MAX_DEATHS = 3
DEATHS_WITHIN_S = 300.0
"""After `MAX_DEATHS` deaths within this time, the next worker would probably die as well.

No further one is started until an admin loads a model.
"""


class StallLimit:
    """How long a step of one worker may take, learned from its steps so far.

    A step computes up to `max_tokens` tokens.
    """

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._longest_s = 0.0
        self._token_s = 0.0

    def add(self, step_s: float, num_tokens: int) -> None:
        """Record the duration of a step and its number of tokens, which may be 0."""
        self._longest_s = max(self._longest_s, step_s)
        if num_tokens:
            token_s = step_s / num_tokens
            self._token_s = min(self._token_s or token_s, token_s)

    def limit_s(self) -> float:
        """Return the time after which a step counts as a hang; 0 before the first step.

        From a step of one token we learn only the cost per token. Therefore the longest step to
        be expected takes `max_tokens` times the lowest cost per token, if no step took longer.
        """
        return STALL_STEPS * max(self._longest_s, self._token_s * self._max_tokens)


class RecentDeaths:
    """Count the recent deaths of one model's workers."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=MAX_DEATHS)

    def add(self) -> bool:
        """Record a death. Return whether there were too many within `DEATHS_WITHIN_S`."""
        self._times.append(time.monotonic())
        is_full = len(self._times) == MAX_DEATHS
        return is_full and self._times[-1] - self._times[0] <= DEATHS_WITHIN_S


def without_variant(start: Start, variant: str) -> Start | None:
    """Return `start` for a worker that avoids a variant of the CPU code.

    Return None if the variant is unknown or is avoided already. llama.cpp chooses a variant by the
    features of the processor, but an operating system or hypervisor may forbid their use: a
    worker then dies of an illegal instruction.
    """
    if not variant or variant in start.avoid_variants:
        return None
    return msgspec.structs.replace(start, avoid_variants=[*start.avoid_variants, variant])
