"""KV states in RAM, of conversations that lost their slot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from llmd.worker.kv.conversation import Conversation
from llmd.worker.kv.prefix import common_prefix
from llmd.worker.kv.reuse_rule import NO_REUSE, Reuse, ReuseRule
from llmd.worker.kv.saved_state import SavedState


@dataclass(frozen=True, eq=False)
class RamState:
    """The saved state of `tokens`."""

    conversation: Conversation
    tokens: list[int]
    saved: SavedState

    def reuse(self, rule: ReuseRule, tokens: list[int]) -> Reuse:
        """Return how much of this state serves a prompt."""
        return rule.apply(
            common_prefix(self.tokens, tokens),
            len(self.tokens),
            self.saved.first_cell,
            [one.num_tokens for one in self.saved.checkpoints],
        )


class RamStates:
    """The KV states used last, at most `max_bytes` of them; with 0 none is kept."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._states: list[RamState] = []

    def __iter__(self) -> Iterator[RamState]:
        """Iterate over the states, the least recently used first."""
        return iter(tuple(self._states))

    def add(
        self, conversation: Conversation, tokens: list[int], saved: SavedState
    ) -> list[RamState]:
        """Keep a state and return those evicted for it, the least recently used first.

        The state replaces those of its owner that it continues. A state larger than `max_bytes`
        is not kept: it is returned, and evicts nothing.
        """
        state = RamState(conversation, list(tokens), saved)
        if saved.num_bytes > self.max_bytes:
            return [state]
        for old in self:
            if _continues(state, old):
                self.remove(old)
        self._states.append(state)
        self.num_bytes += saved.num_bytes
        evicted: list[RamState] = []
        while self.num_bytes > self.max_bytes:
            evicted.append(self._states[0])
            self.remove(self._states[0])
        return evicted

    def find(self, owner: str, tokens: list[int], rule: ReuseRule) -> tuple[Reuse, RamState | None]:
        """Return the owner's state that serves most of `tokens`, and how much of them.

        Nothing is changed: `touch` a state that is used.
        """
        best, most = None, NO_REUSE
        for state in self._states:
            if state.conversation.owner == owner:
                reuse = state.reuse(rule, tokens)
                # Of two as long, the one used later: it is the less likely to be evicted.
                if reuse.num_tokens and reuse.num_tokens >= most.num_tokens:
                    best, most = state, reuse
        return most, best

    def touch(self, state: RamState) -> None:
        """Make a state the most recently used."""
        self._states.remove(state)
        self._states.append(state)

    def remove(self, state: RamState) -> None:
        """Drop a state, if it is still there."""
        if state in self._states:
            self._states.remove(state)
            self.num_bytes -= state.saved.num_bytes

    def forget(self, owner: str, session: str | None) -> None:
        """Drop the states of an owner's session, or of all the owner's sessions."""
        for state in self:
            if state.conversation.belongs_to(owner, session):
                self.remove(state)

    def check(self) -> None:
        """Raise RuntimeError if the count of bytes is wrong or above its limit."""
        num_bytes = sum(state.saved.num_bytes for state in self._states)
        if num_bytes != self.num_bytes or num_bytes > self.max_bytes:
            raise RuntimeError(
                f"KV states in RAM: {num_bytes} bytes are held, {self.num_bytes} were counted, "
                f"{self.max_bytes} are allowed"
            )


def _continues(state: RamState, old: RamState) -> bool:
    same_owner = state.conversation.owner == old.conversation.owner
    return same_owner and state.tokens[: len(old.tokens)] == old.tokens
