"""Statistics of reuse: whether the KV states that an owner leaves are ever asked for again.

A person goes on with a conversation; a program that classifies ten thousand letters does not.
Keeping states that nobody asks for costs time, memory and disk writes.
"""

from __future__ import annotations

from llmd.worker.kv.conversation import Conversation

MIN_REUSED_TOKENS = 64
"""A reuse counts only if at least 64 tokens, and half of those kept, match.

Templates and instructions make a shorter prefix that all prompts of a program share.
"""

_FIRST_TRIES = 32
"""States of an owner that are kept before any reuse, and again for each reuse."""

_SAMPLE_EVERY = 8
"""Every eighth state is kept even if none was reused, to notice when an owner's use changes."""


class _Counts:
    """The states that one owner left, and those that were reused."""

    def __init__(self) -> None:
        self.num_left = 0
        self.num_reused = 0


class ReuseStatistics:
    """Decide per owner whether to keep KV states, by how many were reused so far.

    States of named sessions are always kept.
    """

    def __init__(self) -> None:
        self._counts: dict[str, _Counts] = {}

    def expects_reuse(self, conversation: Conversation) -> bool:
        """Return whether a state may be asked for again. This changes nothing."""
        counts = self._counts.get(conversation.owner)
        if conversation.session or counts is None:
            return True
        return counts.num_left < _FIRST_TRIES * (1 + counts.num_reused)

    def count_left(self, conversation: Conversation) -> bool:
        """Count a state that loses its slot, and return whether to keep it."""
        keep = self.expects_reuse(conversation)
        if not conversation.session:
            counts = self._counts.setdefault(conversation.owner, _Counts())
            keep = keep or counts.num_left % _SAMPLE_EVERY == 0
            counts.num_left += 1
            if counts.num_left >= 8 * _FIRST_TRIES:
                # Halve both, so that older use counts for less.
                counts.num_left //= 2
                counts.num_reused //= 2
        return keep

    def count_reused(self, conversation: Conversation, num_reused: int, num_held: int) -> None:
        """Count a prompt that goes on from `num_reused` of the `num_held` tokens of a state."""
        is_reuse = num_reused >= MIN_REUSED_TOKENS and 2 * num_reused >= num_held
        if is_reuse and not conversation.session:
            self._counts.setdefault(conversation.owner, _Counts()).num_reused += 1
