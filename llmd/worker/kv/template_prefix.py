"""The beginnings that chat templates give to all conversations, computed once for everybody.

What an owner asked is never reused for another. These tokens are the template's own words, before
the first message of anybody, and the same for all who use it.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmd.engine.protocol import ChatPrompt, Part, Prompt
from llmd.worker.backend import Backend, StateBytes
from llmd.worker.kv.prefix import common_prefix

MIN_SHARED_TOKENS = 8
"""Fewer are computed again as fast."""

MAX_SHARED_TOKENS = 512
MAX_SHARED = 8
"""Beginnings: a template has one or two, and one a day when it tells the date."""


def num_shareable(backend: Backend, prompt: Prompt, parts: list[Part], tokens: list[int]) -> int:
    """Return how many tokens of a prompt are the template's words before any message.

    0 where the request had a say in these words, by tools or by values for the template, and
    where they could not be told from the messages.
    """
    if not isinstance(prompt, ChatPrompt) or prompt.tools is not None or prompt.variables != "{}":
        return 0
    first = next((at for at, part in enumerate(parts) if not part.literal), 0)
    if not first:
        return 0
    # Where words and message meet, the tokens may be others than those of the words alone.
    number = common_prefix(backend.tokenize(parts[:first]), tokens[:-1])
    return number if MIN_SHARED_TOKENS <= number <= MAX_SHARED_TOKENS else 0


@dataclass(frozen=True, eq=False)
class _Beginning:
    tokens: list[int]
    data: StateBytes


class SharedBeginnings:
    """The KV of some beginnings, the ones longest unused first."""

    def __init__(self) -> None:
        self._beginnings: list[_Beginning] = []

    def find(self, tokens: list[int]) -> tuple[int, StateBytes]:
        """Return the longest that `tokens` begin with: (its length, its KV); 0 if there is none."""
        fitting = [one for one in self._beginnings if tokens[: len(one.tokens)] == one.tokens]
        if not fitting:
            return 0, b""
        best = max(fitting, key=lambda one: len(one.tokens))
        self._beginnings.remove(best)
        self._beginnings.append(best)
        return len(best.tokens), best.data

    def add(self, tokens: list[int], data: StateBytes) -> None:
        """Keep the KV of a beginning."""
        self._beginnings = [one for one in self._beginnings if one.tokens != tokens]
        self._beginnings.append(_Beginning(tokens, data))
        del self._beginnings[:-MAX_SHARED]
