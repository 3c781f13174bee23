"""The KV states of all conversations: in slots, in RAM and on the disk."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Literal

from llmd.engine.protocol import KeptState
from llmd.worker.backend import Backend
from llmd.worker.kv.conversation import NO_CONVERSATION, Conversation
from llmd.worker.kv.disk import DiskState, DiskStates
from llmd.worker.kv.prefix import common_prefix
from llmd.worker.kv.ram import RamState, RamStates
from llmd.worker.kv.reuse import ReuseStatistics
from llmd.worker.kv.reuse_rule import NO_REUSE, Checkpoint, Reuse, ReuseRule
from llmd.worker.kv.saved_state import SavedState
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

MAX_CHECKPOINTS = 8
"""The number of checkpoints of a slot. The first, often behind the system text, stays longest."""

_CHECKPOINT_SHARE = 1 / 2
"""The checkpoints of all slots may take half of the RAM for states, beside these."""

_MIN_USEFUL = 8
"""Memory that can be cut back in its slot gets checkpoints only if at least 8 fit.

There they serve only states that were moved to RAM or disk.
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
        self._rule = ReuseRule(backend.can_truncate, backend.window)
        self._max_checkpoint_bytes = int(max_ram_bytes * _CHECKPOINT_SHARE)
        self.needs_checkpoints = self._rule.needs_checkpoints and max_ram_bytes > 0
        """Whether prefixes of a prompt can be reused later only from checkpoints."""

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

        At least one token is left to compute, for its logits. A state is loaded only if the slot
        and the idle slots hold up to `room` tokens together with it. Raise LookupError when no
        slot is free.
        """
        owner, usable = conversation.owner, tokens[:-1]
        slot = self._slots.choose(
            conversation,
            lambda one: self._reuse_of(one, owner, usable).num_tokens,
            prefers_empty=not self._ram.max_bytes,
        )
        num_warm = self._warm_up(slot, owner, usable, room)
        num_cached = self._backend.truncate(slot.index, num_warm)
        slot.conversation, slot.tokens = conversation, tokens[:num_cached]
        slot.checkpoints = [one for one in slot.checkpoints if one.num_tokens <= num_cached]
        slot.busy = True
        return slot, num_cached

    def num_warm(self, owner: str, tokens: list[int]) -> int:
        """Return how many of `tokens`, without the last one, slots or RAM can serve now."""
        usable = tokens[:-1]
        in_ram, _ = self._ram.find(owner, usable, self._rule)
        in_slots = [self._reuse_of(slot, owner, usable).num_tokens for slot in self._slots]
        return max(in_ram.num_tokens, *in_slots)

    def has_prefix(self, tokens: list[int]) -> bool:
        """Return whether exactly these tokens are kept as a template's prefix."""
        return self._prefixes.find(tokens)[0] == len(tokens)

    def listing(self) -> Iterator[KeptState]:
        """Iterate over what is kept of every conversation, the quickest tier first."""
        yield from (_kept(slot, "slot") for slot in self._slots if slot.tokens)
        yield from (_kept(state, "memory") for state in self._ram)
        if self._disk is not None:
            yield from (_kept(state, "disk") for state in self._disk.states)

    def _reuse_of(self, slot: Slot, owner: str, tokens: list[int]) -> Reuse:
        """Return how much of a slot serves a prompt of an owner."""
        if slot.conversation.owner != owner or not slot.tokens:
            return NO_REUSE
        return self._rule.apply(
            common_prefix(slot.tokens, tokens),
            len(slot.tokens),
            self._backend.first_cell(slot.index) if self._rule.window else 0,
            [one.num_tokens for one in slot.checkpoints],
        )

    def _warm_up(self, slot: Slot, owner: str, tokens: list[int], room: int) -> int:
        """Bring the longest prefix of `tokens` found in any tier into a slot; return its length.

        The slot must be truncated to that length. What it held and cannot be reused is saved
        first, if it is worth saving.
        """
        own = self._reuse_of(slot, owner, tokens)
        ram, in_ram = self._ram.find(owner, tokens, self._rule)
        num_prefix, prefix = self._prefixes.find(tokens)
        if in_ram is not None and len(in_ram.tokens) > room:
            ram = NO_REUSE
        disk, on_disk = NO_REUSE, None
        if self._disk is not None:
            disk, on_disk = self._disk.find(owner, tokens, self._rule)
        if on_disk is not None and len(on_disk.tokens) > room:
            disk = NO_REUSE
        num_near = max(own.num_tokens, ram.num_tokens, num_prefix)
        if on_disk is not None and disk.num_tokens >= num_near + MIN_FILED_TOKENS:
            saved = self._disk.load(on_disk) if self._disk is not None else None
            if saved is None:
                # The file was damaged, and is gone now.
                return self._warm_up(slot, owner, tokens, room)
            self._reuse.count_reused(on_disk.conversation, disk.num_tokens, len(on_disk.tokens))
            return self._load(slot, saved, disk, room - len(on_disk.tokens))
        if in_ram is not None and ram.num_tokens > max(own.num_tokens, num_prefix):
            self._reuse.count_reused(in_ram.conversation, ram.num_tokens, len(in_ram.tokens))
            self._ram.touch(in_ram)
            num_loaded = self._load(slot, in_ram.saved, ram, room - len(in_ram.tokens))
            if not num_loaded:
                self._ram.remove(in_ram)
            return num_loaded
        if num_prefix > own.num_tokens:
            return self._load(slot, SavedState(prefix), Reuse(num_prefix), room - num_prefix)
        self._reuse.count_reused(slot.conversation, own.num_tokens, len(slot.tokens))
        self._save_rest(slot, own.num_tokens)
        return self._load_checkpoint(slot, own) if own.from_checkpoint else own.num_tokens

    def _load(self, slot: Slot, saved: SavedState, reuse: Reuse, room: int) -> int:
        """Replace what a slot holds by a state, as far as it is reused; return its length.

        On failure the result is 0, and the slot may hold a part of the state. What the slot held
        is saved first. The other idle slots keep at most `room` tokens.
        """
        self._save_rest(slot, 0)
        self._empty(slot)
        self.make_room(room)
        if not self._backend.load(slot.index, saved.data):
            return 0
        slot.checkpoints = list(saved.checkpoints)
        return self._load_checkpoint(slot, reuse) if reuse.from_checkpoint else reuse.num_tokens

    def _load_checkpoint(self, slot: Slot, reuse: Reuse) -> int:
        """Load a checkpoint over what a slot holds; return the reuse's length, or 0 on failure."""
        checkpoint = next(one for one in slot.checkpoints if one.num_tokens == reuse.num_tokens)
        if self._backend.load_checkpoint(slot.index, checkpoint.data):
            return reuse.num_tokens
        return 0

    # Save

    def add_prefix(self, slot: Slot, tokens: list[int]) -> None:
        """Keep what a slot holds, which is exactly `tokens`, as a template's prefix."""
        self._prefixes.add(tokens, self._backend.save(slot.index))

    def add_checkpoint(self, slot: Slot, num_tokens: int) -> None:
        """Keep what cannot be cut back of a slot that holds exactly `num_tokens` now."""
        data = self._backend.save_checkpoint(slot.index)
        least = _MIN_USEFUL if self._rule.can_truncate else 1
        if least * len(data) > self._max_checkpoint_bytes:
            self.needs_checkpoints = False
            return
        if len(slot.checkpoints) >= MAX_CHECKPOINTS:
            del slot.checkpoints[1]
        slot.checkpoints.append(Checkpoint(num_tokens, data))
        self._drop_checkpoints()

    def _drop_checkpoints(self) -> None:
        """Drop the oldest checkpoints, of idle slots first, until the others fit."""
        num_bytes = sum(len(one.data) for slot in self._slots for one in slot.checkpoints)
        for slot in [*self._slots.idle, *(slot for slot in self._slots if slot.busy)]:
            while slot.checkpoints and num_bytes > self._max_checkpoint_bytes:
                num_bytes -= len(slot.checkpoints.pop(0).data)

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
            if not slot.busy and self._is_unsaved(slot, self._disk):
                saved = self._saved(slot)
                if self._disk.add(slot.conversation, slot.tokens, saved):
                    return True
        return any(
            self._disk.add(state.conversation, state.tokens, state.saved)
            for state in self._ram
            if self._is_unsaved(state, self._disk)
        )

    def _is_unsaved(self, held: Slot | RamState, disk: DiskStates) -> bool:
        """Return whether a state should be on the disk, and is not."""
        return (
            len(held.tokens) >= MIN_FILED_TOKENS
            and self._reuse.expects_reuse(held.conversation)
            and not disk.holds(held.conversation.owner, held.tokens)
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
        for evicted in self._ram.add(slot.conversation, slot.tokens, self._saved(slot)):
            if self._disk is not None and self._is_unsaved(evicted, self._disk):
                self._disk.add(evicted.conversation, evicted.tokens, evicted.saved)

    def _saved(self, slot: Slot) -> SavedState:
        """Return a copy of what a slot holds."""
        # Cells that the next token does not look at are left out of a copy.
        first_cell = max(0, len(slot.tokens) - self._rule.window) if self._rule.window else 0
        return SavedState(self._backend.save(slot.index), first_cell, tuple(slot.checkpoints))

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
        slot.checkpoints = []


def _kept(held: Slot | RamState | DiskState, place: Literal["slot", "memory", "disk"]) -> KeptState:
    owner, session = held.conversation
    return KeptState(owner=owner, session=session, place=place, num_tokens=len(held.tokens))
