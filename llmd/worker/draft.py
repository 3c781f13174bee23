"""Guess how an answer goes on, from what stands in the prompt and the answer already.

Where text is copied (edited, quoted, filled in), the tokens after the last ones have stood there
before. A guess is checked in the batch that would have been run anyway, but a wrong one costs a
part of a step: a sequence whose guesses are wrong guesses only where more of the text agrees.

The idea is prompt lookup decoding: https://github.com/apoorvumang/prompt-lookup-decoding
"""

from __future__ import annotations

MIN_AGREEING = 3
"""Tokens that must have stood together before. Two are too common to tell anything."""

MAX_AGREEING = 24
"""So many are asked for in the end of a sequence whose guesses were wrong: text that is copied."""


class Draft:
    """The guesses for one sequence."""

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._places: dict[tuple[int, ...], int] = {}
        self._num_seen = 0
        self._num_needed = MIN_AGREEING
        self.num_drafted = 0
        self.num_accepted = 0

    def guess(self, tokens: list[int], limit: int) -> list[int]:
        """Return at most `limit` tokens that may follow `tokens`; often none."""
        self._see(tokens)
        place = self._places.get(tuple(tokens[-MIN_AGREEING:]))
        limit = min(limit, self.max_tokens)
        if place is None or limit <= 0 or not self._agrees(tokens, place):
            return []
        return tokens[place : place + limit]

    def learn(self, num_drafted: int, num_accepted: int) -> None:
        """Note how many of the last guess's tokens were right."""
        self.num_drafted += num_drafted
        self.num_accepted += num_accepted
        if 2 * num_accepted > num_drafted:
            self._num_needed = max(self._num_needed - 1, MIN_AGREEING)
        else:
            self._num_needed = min(2 * self._num_needed, MAX_AGREEING)

    def _agrees(self, tokens: list[int], place: int) -> bool:
        """Tell whether enough tokens before `place` are those at the end."""
        num = self._num_needed
        return place >= num and tokens[place - num : place] == tokens[-num:]

    def _see(self, tokens: list[int]) -> None:
        """Note where each run of tokens ends, but for the last one, which asks."""
        places = self._places
        for end in range(max(MIN_AGREEING, self._num_seen), len(tokens)):
            places[tuple(tokens[end - MIN_AGREEING : end])] = end
        self._num_seen = max(self._num_seen, len(tokens))
