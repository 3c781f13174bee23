"""KV states of sessions that lost their slot, in RAM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llmd.worker.backend import StateBytes
from llmd.worker.kv.disk import DiskStates
from llmd.worker.kv.prefix import common_prefix
from llmd.worker.kv.reuse import Worth


@dataclass(frozen=True, eq=False)
class State:
    """The KV of `tokens`, as bytes."""

    owner: str
    session: str
    tokens: list[int]
    data: StateBytes


class States:
    """The states that were used last, at most `max_bytes` of them. 0 keeps none.

    Those for which there is no room any more go to the `disk`, if there is one, and they may be
    wanted again.
    """

    def __init__(self, max_bytes: int, disk: DiskStates | None = None) -> None:
        self.max_bytes = max_bytes
        self._disk = disk
        self.worth = Worth()
        self._states: list[State] = []
        self.num_bytes = 0

    @property
    def states(self) -> list[State]:
        """All states, the ones longest unused first."""
        return list(self._states)

    def add(
        self, owner: str, session: str, tokens: list[int], save: Callable[[], StateBytes]
    ) -> None:
        """Keep a state, in place of those it continues; drop the ones longest unused.

        One that is larger than all the room is not kept.
        """
        if not self.max_bytes:
            return
        state = State(owner, session, list(tokens), save())
        if len(state.data) > self.max_bytes:
            return
        for old in [old for old in self._states if _continues(state, old)]:
            self.remove(old)
        self._states.append(state)
        self.num_bytes += len(state.data)
        while self.num_bytes > self.max_bytes:
            evicted = self._states[0]
            self.remove(evicted)
            if self._disk is not None and self.worth.is_wanted(evicted.owner, evicted.session):
                self._disk.add(evicted.owner, evicted.session, evicted.tokens, evicted.data)

    def find(self, owner: str, tokens: list[int]) -> tuple[int, State | None]:
        """Return the owner's state that shares most of `tokens`: (how many, state)."""
        found = [
            (common_prefix(state.tokens, tokens), index)
            for index, state in enumerate(self._states)
            if state.owner == owner
        ]
        num_shared, index = max(found, default=(0, -1))
        if not num_shared:
            return 0, None
        state = self._states.pop(index)
        self._states.append(state)
        return num_shared, state

    def remove(self, state: State) -> None:
        """Drop one state, if it is still there."""
        if state in self._states:
            self._states.remove(state)
            self.num_bytes -= len(state.data)

    def forget(self, owner: str, session: str | None) -> None:
        """Drop the states of an owner's session, or of all its sessions."""
        for state in list(self._states):
            if state.owner == owner and session in (None, state.session):
                self.remove(state)


def _continues(state: State, old: State) -> bool:
    return state.owner == old.owner and state.tokens[: len(old.tokens)] == old.tokens
