"""Cache the tokens of texts, because each turn sends its whole conversation again.

Tokenising takes llama.cpp 8 us a token. It runs in the decoding thread and stalls all answers.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable

MAX_CHARS = 2_000_000
"""Limit for all texts together. With tokens, plain text takes some 5 MB, and any at most 40 MB."""

CHARS_PER_ENTRY = 64
"""Characters added to the length of each text, for the memory that an entry takes."""


class TokenCache:
    """A cache of texts and their tokens that drops the least recently used first.

    Each owner has entries of its own. Otherwise a shorter wait would reveal to one owner what
    another has asked.
    """

    def __init__(self, tokenize: Callable[[str], array[int]], max_chars: int = MAX_CHARS) -> None:
        self._tokenize = tokenize
        self._max_chars = max_chars
        self._known: OrderedDict[tuple[str, str], array[int]] = OrderedDict()
        self.num_chars = 0

    def tokens(self, owner: str, text: str) -> array[int]:
        """Return the tokens of an owner's text."""
        key = owner, text
        found = self._known.get(key)
        if found is not None:
            self._known.move_to_end(key)
            return found
        tokens = self._tokenize(text)
        if _weight(text) > self._max_chars:
            return tokens
        self._known[key] = tokens
        self.num_chars += _weight(text)
        while self.num_chars > self._max_chars:
            (_, oldest), _ = self._known.popitem(last=False)
            self.num_chars -= _weight(oldest)
        return tokens

    def forget(self, owner: str) -> None:
        """Drop all texts of an owner."""
        for key in [key for key in self._known if key[0] == owner]:
            del self._known[key]
            self.num_chars -= _weight(key[1])


def _weight(text: str) -> int:
    return CHARS_PER_ENTRY + len(text)
