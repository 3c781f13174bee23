"""Prefixes that a chat template gives to every conversation, computed once for all owners.

What an owner asked is never reused for another owner. These tokens are the template's own text
before the first message, and are the same for everyone who uses the template.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmd.engine.protocol import ChatPrompt, Part, Prompt
from llmd.worker.backend import Backend, StateBytes
from llmd.worker.kv.prefix import common_prefix

MIN_SHARED_TOKENS = 8
"""Shorter prefixes are not kept: computing them again is as fast as loading them."""

MAX_SHARED_TOKENS = 512
"""Longer prefixes are not kept, to bound the memory."""

MAX_PREFIXES = 8
"""The number of prefixes kept: a template has one or two, and one a day if it states the date."""


def num_shareable(backend: Backend, prompt: Prompt, parts: list[Part], tokens: list[int]) -> int:
    """Return how many tokens of a prompt are the template's own text before any message.

    The result is 0 if the request influenced that text, by tools or by variables of the
    template, or if the text cannot be told apart from the messages.
    """
    if not isinstance(prompt, ChatPrompt) or prompt.tools is not None or prompt.variables != "{}":
        return 0
    first = next((at for at, part in enumerate(parts) if not part.literal), 0)
    if not first:
        return 0
    # Where the template's text and a message meet, the tokens may differ from those of the
    # text alone.
    number = common_prefix(backend.tokenize(parts[:first]), tokens[:-1])
    return number if MIN_SHARED_TOKENS <= number <= MAX_SHARED_TOKENS else 0


@dataclass(frozen=True, eq=False)
class _Prefix:
    tokens: list[int]
    data: StateBytes


class TemplatePrefixes:
    """The KV states of up to `MAX_PREFIXES` prefixes, the least recently used first."""

    def __init__(self) -> None:
        self._prefixes: list[_Prefix] = []

    def find(self, tokens: list[int]) -> tuple[int, StateBytes]:
        """Return the length and KV state of the longest prefix of `tokens`; 0 if there is none.

        The prefix found becomes the most recently used.
        """
        fitting = [one for one in self._prefixes if tokens[: len(one.tokens)] == one.tokens]
        if not fitting:
            return 0, b""
        best = max(fitting, key=lambda one: len(one.tokens))
        self._prefixes.remove(best)
        self._prefixes.append(best)
        return len(best.tokens), best.data

    def add(self, tokens: list[int], data: StateBytes) -> None:
        """Keep the KV state of a prefix, in place of the least recently used if there are many."""
        self._prefixes = [one for one in self._prefixes if one.tokens != tokens]
        self._prefixes.append(_Prefix(tokens, data))
        del self._prefixes[:-MAX_PREFIXES]
