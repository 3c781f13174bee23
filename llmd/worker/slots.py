"""Which sequence has which slot of the KV memory, and what each slot still knows."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmd.worker.backend import Backend
from llmd.worker.prefix import common_prefix
from llmd.worker.states import States

MIN_SAVED_TOKENS = 64
"""Fewer lost tokens than this are computed again as fast as a state is kept."""


@dataclass
class Slot:
    """One sequence's KV memory. `tokens` are those whose keys and values it holds."""

    index: int
    owner: str = ""
    session: str = ""
    tokens: list[int] = field(default_factory=list)
    busy: bool = False
    forgotten: bool = False
    """Its session was forgotten while a sequence used it: empty it afterwards."""
    last_used: int = 0


class Slots:
    """All slots. A free one keeps its tokens, so that the next turn of a session finds them.

    What an owner computed is never reused for another: a shorter wait for the first token
    would tell one owner what another had asked.
    """

    def __init__(self, backend: Backend, states: States) -> None:
        self._backend = backend
        self._states = states
        self._slots = [Slot(index) for index in range(backend.max_sequences)]
        self._clock = 0

    @property
    def num_free(self) -> int:
        """How many slots no sequence uses."""
        return sum(not slot.busy for slot in self._slots)

    def acquire(self, owner: str, session: str, tokens: list[int]) -> tuple[Slot, int]:
        """Give a free slot to a sequence: (slot, how many of `tokens` it holds already).

        At least one token is left to compute, for its logits. Raise LookupError when no slot
        is free: ask `num_free` before.
        """
        slot = self._choose(owner, session, tokens)
        usable = tokens[:-1]
        num_cached = common_prefix(slot.tokens, usable) if slot.owner == owner else 0
        num_saved, state = self._states.find(owner, usable)
        if state is not None and num_saved > num_cached:
            self._keep(slot, 0)
            self._backend.truncate(slot.index, 0)
            if self._backend.load(slot.index, state.data):
                num_cached = num_saved
            else:
                num_cached = 0
                self._states.remove(state)
        else:
            self._keep(slot, num_cached)
        num_cached = self._backend.truncate(slot.index, num_cached)
        slot.owner, slot.session, slot.tokens = owner, session, tokens[:num_cached]
        slot.busy = True
        return slot, num_cached

    def release(self, slot: Slot, tokens: list[int]) -> None:
        """Take a slot back, which now holds the KV of `tokens`."""
        slot.tokens = tokens
        slot.busy = False
        self._clock += 1
        slot.last_used = self._clock
        if slot.forgotten:
            self._empty(slot)

    def forget(self, owner: str, session: str | None) -> None:
        """Drop what slots and states hold of an owner's session, or of all its sessions.

        A slot in use is emptied when it is released.
        """
        for slot in self._slots:
            if slot.owner == owner and session in (None, slot.session):
                if slot.busy:
                    slot.forgotten = True
                else:
                    self._empty(slot)
        self._states.forget(owner, session)

    def _empty(self, slot: Slot) -> None:
        self._backend.truncate(slot.index, 0)
        slot.owner, slot.session, slot.tokens, slot.forgotten = "", "", [], False

    def _choose(self, owner: str, session: str, tokens: list[int]) -> Slot:
        """Return the free slot that `tokens` continue, else the one longest unused.

        A session's own slot comes first, even if most of it will be lost: what others have in
        theirs is worth more to them.
        """
        free = [slot for slot in self._slots if not slot.busy]
        if not free:
            raise LookupError("no slot is free")
        for slot in free:
            is_own = session and (slot.owner, slot.session) == (owner, session)
            if is_own and common_prefix(slot.tokens, tokens):
                return slot
        best = max(free, key=lambda slot: self._num_continued(slot, owner, tokens))
        if self._num_continued(best, owner, tokens) > 0:
            return best
        return min(free, key=lambda slot: (bool(slot.tokens), slot.last_used))

    def _num_continued(self, slot: Slot, owner: str, tokens: list[int]) -> int:
        """Return the shared prefix, or 0 where most of what the slot holds would be lost."""
        if slot.owner != owner:
            return 0
        shared = common_prefix(slot.tokens, tokens)
        return shared if 2 * shared >= len(slot.tokens) else 0

    def _keep(self, slot: Slot, num_cached: int) -> None:
        """Save a slot's state when it holds many tokens beyond those that stay in use."""
        if len(slot.tokens) - num_cached >= MIN_SAVED_TOKENS:
            self._states.add(
                slot.owner, slot.session, slot.tokens, lambda: self._backend.save(slot.index)
            )
