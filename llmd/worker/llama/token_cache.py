"""The tokens of texts that were in a prompt before: a conversation comes whole with every turn.

To tokenise takes llama.cpp 8 us a token, in the thread that decodes: all who generate wait for it.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable

MAX_CHARS = 2_000_000
"""Of all texts together: of plain text some 5 MB with the tokens, and never more than 40 MB."""

CHARS_PER_ENTRY = 64
"""What a text counts beside its length: the shortest takes memory, too."""


class TokenCache:
    """Texts and their tokens, the ones longest unused first.

    What one owner's text gave is never looked up for another: a shorter wait would tell one owner
    what another had asked.
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
