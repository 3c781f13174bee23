"""Guess how an answer goes on, from what stands in the prompt and the answer already.

Where text is copied (edited, quoted, filled in), the tokens after the last ones have stood there
before. A guess is checked in the batch that would have been run anyway, and costs a part of a
step when it is wrong: a sequence whose guesses are wrong guesses less and less often.

The idea is prompt lookup decoding: https://github.com/apoorvumang/prompt-lookup-decoding
"""

from __future__ import annotations

NGRAM = 3
"""Tokens that must have stood together before. Two are too common to tell anything."""

MAX_PAUSE = 64
"""Of so many tokens at most, until a sequence whose guesses were wrong guesses again."""


class Draft:
    """The guesses for one sequence."""

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._places: dict[tuple[int, ...], int] = {}
        self._num_seen = 0
        self._pause = 0
        self._next_pause = 1
        self.num_drafted = 0
        self.num_accepted = 0

    def guess(self, tokens: list[int], limit: int) -> list[int]:
        """Return at most `limit` tokens that may follow `tokens`; often none."""
        self._see(tokens)
        if self._pause:
            self._pause -= 1
            return []
        limit = min(limit, self.max_tokens)
        if limit <= 0:
            return []
        place = self._places.get(tuple(tokens[-NGRAM:]))
        return [] if place is None else tokens[place : place + limit]

    def learn(self, num_drafted: int, num_accepted: int) -> None:
        """Note how many of the last guess's tokens were right."""
        self.num_drafted += num_drafted
        self.num_accepted += num_accepted
        if num_accepted:
            self._next_pause = 1
        elif num_drafted:
            self._pause = self._next_pause
            self._next_pause = min(2 * self._next_pause, MAX_PAUSE)

    def _see(self, tokens: list[int]) -> None:
        """Note where each run of tokens ends, but for the last one, which asks."""
        places = self._places
        for end in range(max(NGRAM, self._num_seen), len(tokens)):
            places[tuple(tokens[end - NGRAM : end])] = end
        self._num_seen = max(self._num_seen, len(tokens))
