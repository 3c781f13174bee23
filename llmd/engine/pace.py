"""How long a step of a worker may take."""

from __future__ import annotations

STALL_STEPS = 10
"""A step that takes so many times the longest to be expected is a hang."""


class Pace:
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
