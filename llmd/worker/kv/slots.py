"""Which sequence has which slot of the KV memory, and what each slot still knows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, Protocol

from llmd.engine.protocol import KeptState
from llmd.worker.backend import Backend, StateBytes
from llmd.worker.kv.disk import DiskStates, Entry
from llmd.worker.kv.prefix import common_prefix
from llmd.worker.kv.ram import States
from llmd.worker.kv.template_prefix import SharedBeginnings

MIN_FILED_TOKENS = 128
"""So many tokens must be gained by reading a file: fewer are computed as fast."""

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


class _Holds(Protocol):
    """What has the tokens of a session."""

    @property
    def owner(self) -> str: ...
    @property
    def session(self) -> str: ...
    @property
    def tokens(self) -> list[int]: ...


def _kept(held: _Holds, place: Literal["slot", "memory", "disk"]) -> KeptState:
    return KeptState(
        owner=held.owner, session=held.session, place=place, num_tokens=len(held.tokens)
    )


class Slots:
    """All slots. A free one keeps its tokens, so that the next turn of a session finds them.

    What an owner computed is never reused for another: a shorter wait for the first token
    would tell one owner what another had asked.
    """

    def __init__(self, backend: Backend, states: States, disk: DiskStates | None = None) -> None:
        self._backend = backend
        self._states = states
        self._disk = disk
        self._slots = [Slot(index) for index in range(backend.max_sequences)]
        self._shared = SharedBeginnings()
        self._clock = 0

    @property
    def num_free(self) -> int:
        """How many slots no sequence uses."""
        return sum(not slot.busy for slot in self._slots)

    def idle(self) -> dict[int, int]:
        """Return the slots that no sequence uses, and how many tokens each holds."""
        return {slot.index: len(slot.tokens) for slot in self._slots if not slot.busy}

    def acquire(
        self, owner: str, session: str, tokens: list[int], room: int = sys.maxsize
    ) -> tuple[Slot, int]:
        """Give a free slot to a sequence: (slot, how many of `tokens` it holds already).

        At least one token is left to compute, for its logits. It and the idle slots may hold up
        to `room` tokens together. Raise LookupError when no slot is free: ask `num_free` before.
        """
        slot = self._choose(owner, session, tokens)
        num_warm = self._warm_up(slot, owner, tokens[:-1], room)
        num_cached = self._backend.truncate(slot.index, num_warm)
        slot.owner, slot.session, slot.tokens = owner, session, tokens[:num_cached]
        slot.busy = True
        return slot, num_cached

    def _warm_up(self, slot: Slot, owner: str, tokens: list[int], room: int) -> int:
        """Put the longest beginning of `tokens` that is kept anywhere into a slot; its length.

        What the slot held and cannot be used is saved before, if it is worth that.
        """
        num_own = common_prefix(slot.tokens, tokens) if slot.owner == owner else 0
        num_saved, state = self._states.find(owner, tokens)
        num_shared, shared = self._shared.find(tokens)
        if state is not None and len(state.tokens) > room:
            num_saved = 0
        num_filed, entry = self._disk.find(owner, tokens) if self._disk else (0, None)
        if entry is not None and len(entry.tokens) > room:
            num_filed = 0
        worth = self._states.worth
        num_near = max(num_own, num_saved, num_shared)
        if entry is not None and num_filed >= num_near + MIN_FILED_TOKENS:
            worth.note_found(owner, num_filed, len(entry.tokens))
            return num_filed if self._load_file(slot, entry, room) else 0
        if state is not None and num_saved > max(num_own, num_shared):
            worth.note_found(owner, num_saved, len(state.tokens))
            if self._load(slot, state.data, room - len(state.tokens)):
                return num_saved
            self._states.remove(state)
            return 0
        if num_shared > num_own:
            return num_shared if self._load(slot, shared, room - num_shared) else 0
        worth.note_found(owner, num_own, len(slot.tokens))
        self._keep(slot, num_own)
        return num_own

    def knows(self, tokens: list[int]) -> bool:
        """Tell whether these tokens are kept as a beginning for everybody."""
        return self._shared.find(tokens)[0] == len(tokens)

    def share(self, slot: Slot, tokens: list[int]) -> None:
        """Keep what a slot holds, which is just `tokens`, as a beginning for everybody."""
        self._shared.add(tokens, self._backend.save(slot.index))

    def num_warm(self, owner: str, tokens: list[int]) -> int:
        """Return how many of `tokens` a slot or RAM holds now, of which one is always computed."""
        usable = tokens[:-1]
        held: list[_Holds] = [*self._slots, *self._states.states]
        shared = (common_prefix(one.tokens, usable) for one in held if one.owner == owner)
        return max(shared, default=0)

    def _load(self, slot: Slot, data: StateBytes, room: int) -> bool:
        """Put a state into a slot; what the slot holds is kept before. False: it is empty now.

        `room` is how many tokens the other idle slots may go on to hold.
        """
        self._keep(slot, 0)
        self._empty(slot)
        self.make_room(room)
        return self._backend.load(slot.index, data)

    def _load_file(self, slot: Slot, entry: Entry, room: int) -> bool:
        assert self._disk is not None, "a file without a disk"  # noqa: S101
        data = self._disk.load(entry)
        if data is not None and self._load(slot, data, room - len(entry.tokens)):
            return True
        self._disk.remove(entry)
        return False

    def kept(self) -> Iterator[KeptState]:
        """Yield what is warm of every session, in slots, in RAM and on the disk."""
        for slot in self._slots:
            if slot.tokens:
                yield _kept(slot, "slot")
        for state in self._states.states:
            yield _kept(state, "memory")
        for entry in self._disk.entries if self._disk else []:
            yield _kept(entry, "disk")

    def save_one(self) -> bool:
        """Put one state to the disk that is not there; False when there is none any more."""
        if self._disk is None:
            return False
        for slot in self._slots:
            if not slot.busy and self._is_unsaved(slot):
                self._disk.add(
                    slot.owner, slot.session, slot.tokens, self._backend.save(slot.index)
                )
                return self._disk.holds(slot.owner, slot.tokens)
        for state in self._states.states:
            if self._is_unsaved(state):
                self._disk.add(state.owner, state.session, state.tokens, state.data)
                return self._disk.holds(state.owner, state.tokens)
        return False

    def _is_unsaved(self, held: _Holds) -> bool:
        if self._disk is None or len(held.tokens) < MIN_FILED_TOKENS:
            return False
        is_wanted = self._states.worth.is_wanted(held.owner, held.session)
        return is_wanted and not self._disk.holds(held.owner, held.tokens)

    def release(self, slot: Slot, tokens: list[int]) -> None:
        """Take a slot back, which now holds the KV of `tokens`."""
        slot.tokens = tokens
        slot.busy = False
        self._clock += 1
        slot.last_used = self._clock
        if slot.forgotten:
            self._empty(slot)

    def set_aside(self, slot: Slot, tokens: list[int]) -> None:
        """Take a slot back from a sequence that goes on later, and keep what it holds in RAM."""
        self.release(slot, tokens)
        if slot.tokens:
            save = partial(self._backend.save, slot.index)
            self._states.add(slot.owner, slot.session, slot.tokens, save)
            self._empty(slot)

    def make_room(self, room: int) -> None:
        """Empty idle slots, those longest unused first, until they hold at most `room` tokens."""
        idle = [slot for slot in self._slots if not slot.busy and slot.tokens]
        num_held = sum(len(slot.tokens) for slot in idle)
        for slot in sorted(idle, key=lambda slot: slot.last_used):
            if num_held <= room:
                return
            num_held -= len(slot.tokens)
            self._keep(slot, 0)
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
        if self._disk is not None:
            self._disk.forget(owner, session)

    def _empty(self, slot: Slot) -> None:
        self._backend.truncate(slot.index, 0)
        slot.owner, slot.session, slot.tokens, slot.forgotten = "", "", [], False

    def _choose(self, owner: str, session: str, tokens: list[int]) -> Slot:
        """Return the free slot that `tokens` continue, else one beside slots in use.

        A session's own slot comes first, even if most of it will be lost: what others have in
        theirs is worth more to them. Of slots as good, it is an empty one, then the one longest
        unused.
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
        return min(free, key=lambda slot: (*self._price(slot), slot.last_used))

    def _price(self, slot: Slot) -> tuple[int, ...]:
        """Return what it costs to take a slot that has something else or nothing.

        Neighbours in use are computed with it in one pass over the weights, and gaps between them
        by rows that nobody wants (see `fill`). To have none is worth more than what an idle slot
        holds, as long as that is kept in RAM.
        """
        index = slot.index
        busy = [one.index for one in self._slots if one.busy]
        span = max([index, *busy]) - min([index, *busy])
        num_beside = (index - 1 in busy) + (index + 1 in busy)
        is_full = int(bool(slot.tokens))
        if not self._states.max_bytes:
            return is_full, span, -num_beside
        return span, -num_beside, is_full

    def _num_continued(self, slot: Slot, owner: str, tokens: list[int]) -> int:
        """Return the shared prefix, or 0 where most of what the slot holds would be lost."""
        if slot.owner != owner:
            return 0
        shared = common_prefix(slot.tokens, tokens)
        return shared if 2 * shared >= len(slot.tokens) else 0

    def _keep(self, slot: Slot, num_cached: int) -> None:
        """Save a slot's state when it holds many tokens beyond those that stay in use."""
        if len(slot.tokens) - num_cached < MIN_SAVED_TOKENS:
            return
        if self._states.worth.is_kept(slot.owner, slot.session):
            self._states.add(
                slot.owner, slot.session, slot.tokens, lambda: self._backend.save(slot.index)
            )
