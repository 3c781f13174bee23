"""The KV states of all conversations: in slots, in RAM and on the disk."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Literal

from llmd.engine.protocol import KeptState
from llmd.worker.backend import Backend, StateBytes
from llmd.worker.kv.conversation import NO_CONVERSATION, Conversation
from llmd.worker.kv.disk import DiskState, DiskStates
from llmd.worker.kv.prefix import common_prefix
from llmd.worker.kv.ram import RamState, RamStates
from llmd.worker.kv.reuse import ReuseStatistics
from llmd.worker.kv.slots import Slot, Slots
from llmd.worker.kv.template_prefix import TemplatePrefixes

MIN_FILED_TOKENS = 128
"""A file is written, and read in place of a nearer state, only for at least 128 tokens.

Fewer are computed again as fast as a file is read.
"""

MIN_SAVED_TOKENS = 64
"""A state is copied to RAM only if at least 64 tokens would be lost.

Fewer are computed again as fast as a state is copied.
"""


class KvTiers:
    """Find, save and forget KV states over three tiers: slots, RAM and disk.

    What an owner computed is never reused for another: a shorter wait for the first token would
    tell one owner what another had asked. Only a template's own prefix is shared.

    Not thread-safe: the thread that decodes owns it.
    """

    def __init__(
        self, backend: Backend, max_ram_bytes: int, disk: DiskStates | None = None
    ) -> None:
        self._backend = backend
        self._slots = Slots(backend.max_sequences)
        self._ram = RamStates(max_ram_bytes)
        self._disk = disk
        self._prefixes = TemplatePrefixes()
        self._reuse = ReuseStatistics()

    @property
    def num_free(self) -> int:
        """The number of slots that no sequence uses."""
        return self._slots.num_free

    @property
    def num_ram_bytes(self) -> int:
        """The size of all states in RAM."""
        return self._ram.num_bytes

    def idle_lengths(self) -> dict[int, int]:
        """Return the number of tokens in each slot that no sequence uses, by its index."""
        return {slot.index: len(slot.tokens) for slot in self._slots if not slot.busy}

    def check(self) -> None:
        """Raise RuntimeError unless all slots are free and every byte in RAM is accounted for."""
        if self.num_free != self._backend.max_sequences:
            raise RuntimeError("a slot is still in use, though no sequence runs")
        self._ram.check()

    # Search

    def acquire(
        self, conversation: Conversation, tokens: list[int], room: int = sys.maxsize
    ) -> tuple[Slot, int]:
        """Take a free slot for a sequence; return it, and how many of `tokens` it holds already.

        At least one token is left to compute, for its logits. The slot and the idle slots hold
        up to `room` tokens together afterwards. Raise LookupError when no slot is free.
        """
        slot = self._slots.choose(conversation, tokens, prefers_empty=not self._ram.max_bytes)
        num_warm = self._warm_up(slot, conversation.owner, tokens[:-1], room)
        num_cached = self._backend.truncate(slot.index, num_warm)
        slot.conversation, slot.tokens = conversation, tokens[:num_cached]
        slot.busy = True
        return slot, num_cached

    def num_warm(self, owner: str, tokens: list[int]) -> int:
        """Return how many of `tokens`, of which one is always computed, slots or RAM hold now."""
        usable = tokens[:-1]
        held: list[Slot | RamState] = [*self._slots, *self._ram]
        return max(
            (common_prefix(one.tokens, usable) for one in held if one.conversation.owner == owner),
            default=0,
        )

    def has_prefix(self, tokens: list[int]) -> bool:
        """Return whether exactly these tokens are kept as a template's prefix."""
        return self._prefixes.find(tokens)[0] == len(tokens)

    def listing(self) -> Iterator[KeptState]:
        """Iterate over what is kept of every conversation, the quickest tier first."""
        yield from (_kept(slot, "slot") for slot in self._slots if slot.tokens)
        yield from (_kept(state, "memory") for state in self._ram)
        if self._disk is not None:
            yield from (_kept(state, "disk") for state in self._disk.states)

    def _warm_up(self, slot: Slot, owner: str, tokens: list[int], room: int) -> int:
        """Bring the longest prefix of `tokens` found in any tier into a slot; return its length.

        What the slot held and cannot be reused is saved first, if it is worth saving.
        """
        num_own = common_prefix(slot.tokens, tokens) if slot.conversation.owner == owner else 0
        num_ram, in_ram = self._ram.find(owner, tokens)
        num_prefix, prefix = self._prefixes.find(tokens)
        if in_ram is not None and len(in_ram.tokens) > room:
            num_ram = 0
        num_disk, on_disk = self._disk.find(owner, tokens) if self._disk else (0, None)
        if on_disk is not None and len(on_disk.tokens) > room:
            num_disk = 0
        num_near = max(num_own, num_ram, num_prefix)
        if on_disk is not None and num_disk >= num_near + MIN_FILED_TOKENS:
            self._reuse.count_reused(owner, num_disk, len(on_disk.tokens))
            return num_disk if self._load_from_disk(slot, on_disk, room) else 0
        if in_ram is not None and num_ram > max(num_own, num_prefix):
            self._reuse.count_reused(owner, num_ram, len(in_ram.tokens))
            self._ram.touch(in_ram)
            if self._load(slot, in_ram.data, room - len(in_ram.tokens)):
                return num_ram
            self._ram.remove(in_ram)
            return 0
        if num_prefix > num_own:
            return num_prefix if self._load(slot, prefix, room - num_prefix) else 0
        self._reuse.count_reused(owner, num_own, len(slot.tokens))
        self._save_rest(slot, num_own)
        return num_own

    def _load(self, slot: Slot, data: StateBytes, room: int) -> bool:
        """Replace what a slot holds by a state; return False, with the slot empty, on failure.

        What the slot held is saved first. The other idle slots keep at most `room` tokens.
        """
        self._save_rest(slot, 0)
        self._empty(slot)
        self.make_room(room)
        return self._backend.load(slot.index, data)

    def _load_from_disk(self, slot: Slot, state: DiskState, room: int) -> bool:
        assert self._disk is not None, "a file without a disk"  # noqa: S101
        data = self._disk.load(state)
        if data is not None and self._load(slot, data, room - len(state.tokens)):
            return True
        self._disk.remove(state)
        return False

    # Save

    def add_prefix(self, slot: Slot, tokens: list[int]) -> None:
        """Keep what a slot holds, which is exactly `tokens`, as a template's prefix."""
        self._prefixes.add(tokens, self._backend.save(slot.index))

    def release(self, slot: Slot, tokens: list[int]) -> None:
        """Take back a slot that now holds the keys and values of `tokens`."""
        slot.tokens = tokens
        self._slots.release(slot)
        if slot.forgotten:
            self._empty(slot)

    def set_aside(self, slot: Slot, tokens: list[int]) -> None:
        """Take back the slot of a sequence that goes on later, and move what it holds to RAM."""
        self.release(slot, tokens)
        if slot.tokens:
            self._save_to_ram(slot)
            self._empty(slot)

    def make_room(self, room: int) -> None:
        """Empty the least recently used idle slots until they hold at most `room` tokens."""
        idle = [slot for slot in self._slots.idle if slot.tokens]
        num_held = sum(len(slot.tokens) for slot in idle)
        for slot in idle:
            if num_held <= room:
                return
            num_held -= len(slot.tokens)
            self._save_rest(slot, 0)
            self._empty(slot)

    def save_one(self) -> bool:
        """Write one state to the disk that is not there yet; return False if there is none."""
        if self._disk is None:
            return False
        for slot in self._slots:
            if not slot.busy and self._is_unsaved(slot):
                data = self._backend.save(slot.index)
                self._disk.add(slot.conversation, slot.tokens, data)
                return self._disk.holds(slot.conversation.owner, slot.tokens)
        for state in self._ram:
            if self._is_unsaved(state):
                self._disk.add(state.conversation, state.tokens, state.data)
                return self._disk.holds(state.conversation.owner, state.tokens)
        return False

    def _is_unsaved(self, held: Slot | RamState) -> bool:
        if self._disk is None or len(held.tokens) < MIN_FILED_TOKENS:
            return False
        owner = held.conversation.owner
        return self._reuse.expects_reuse(held.conversation) and not self._disk.holds(
            owner, held.tokens
        )

    def _save_rest(self, slot: Slot, num_kept: int) -> None:
        """Save a slot's state if it holds many tokens beyond the `num_kept` that stay in use."""
        if len(slot.tokens) - num_kept >= MIN_SAVED_TOKENS and self._reuse.count_left(
            slot.conversation
        ):
            self._save_to_ram(slot)

    def _save_to_ram(self, slot: Slot) -> None:
        """Copy a slot's state to RAM; states evicted for it go to the disk."""
        if not self._ram.max_bytes:
            return
        data = self._backend.save(slot.index)
        for evicted in self._ram.add(slot.conversation, slot.tokens, data):
            if self._disk is not None and self._reuse.expects_reuse(evicted.conversation):
                self._disk.add(evicted.conversation, evicted.tokens, evicted.data)

    # Forget

    def forget(self, owner: str, session: str | None) -> None:
        """Drop all states of an owner's session, or of all the owner's sessions.

        A slot in use is emptied when it is released.
        """
        for slot in self._slots:
            if slot.conversation.belongs_to(owner, session):
                if slot.busy:
                    slot.forgotten = True
                else:
                    self._empty(slot)
        self._ram.forget(owner, session)
        if self._disk is not None:
            self._disk.forget(owner, session)

    def _empty(self, slot: Slot) -> None:
        self._backend.truncate(slot.index, 0)
        slot.conversation, slot.tokens, slot.forgotten = NO_CONVERSATION, [], False


def _kept(held: Slot | RamState | DiskState, place: Literal["slot", "memory", "disk"]) -> KeptState:
    owner, session = held.conversation
    return KeptState(owner=owner, session=session, place=place, num_tokens=len(held.tokens))
