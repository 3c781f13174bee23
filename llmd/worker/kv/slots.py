"""The slots of the KV memory: which are in use, what each holds, and which to take next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from llmd.worker.kv.conversation import NO_CONVERSATION, Conversation
from llmd.worker.kv.reuse_rule import Checkpoint


@dataclass
class Slot:
    """The KV memory of one sequence. `tokens` are those whose keys and values it holds."""

    index: int
    conversation: Conversation = NO_CONVERSATION
    tokens: list[int] = field(default_factory=list)
    busy: bool = False
    forgotten: bool = False
    """Whether its session was deleted while a sequence used it: it is emptied on release."""
    last_used: int = 0
    checkpoints: list[Checkpoint] = field(default_factory=list)
    """The checkpoints of its tokens, the shortest first; of models that need any."""


class Slots:
    """All slots. Bookkeeping alone: `KvTiers` moves the keys and values.

    An idle slot keeps its tokens, so that the next turn of a conversation finds them.
    """

    def __init__(self, num_slots: int) -> None:
        self._slots = [Slot(index) for index in range(num_slots)]
        self._clock = 0

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots)

    @property
    def num_free(self) -> int:
        """The number of slots that no sequence uses."""
        return sum(not slot.busy for slot in self._slots)

    @property
    def idle(self) -> list[Slot]:
        """The slots that no sequence uses, the least recently used first."""
        return sorted(
            (slot for slot in self._slots if not slot.busy), key=lambda slot: slot.last_used
        )

    def release(self, slot: Slot) -> None:
        """Take a slot back, as the most recently used."""
        slot.busy = False
        self._clock += 1
        slot.last_used = self._clock

    def choose(
        self,
        conversation: Conversation,
        num_reusable: Callable[[Slot], int],
        *,
        prefers_empty: bool,
    ) -> Slot:
        """Return the free slot for a prompt. Raise LookupError when none is free.

        `num_reusable` returns how many tokens of the prompt a slot can serve. The slot that the
        conversation used comes first, even if most of it is lost: the other slots are worth more
        to their own conversations. Then the slot that serves most of the prompt, unless most of
        the slot would be lost. Then one beside slots in use, or with `prefers_empty` an empty one.
        """
        free = [slot for slot in self._slots if not slot.busy]
        if not free:
            raise LookupError("no slot is free")
        for slot in free:
            is_own = conversation.session and slot.conversation == conversation
            if is_own and num_reusable(slot):
                return slot
        best = max(free, key=lambda slot: _num_continued(slot, num_reusable))
        if _num_continued(best, num_reusable) > 0:
            return best
        return min(free, key=lambda slot: self._cost_of_taking(slot, prefers_empty=prefers_empty))

    def _cost_of_taking(self, slot: Slot, *, prefers_empty: bool) -> tuple[int, ...]:
        """Return the cost of a slot that holds nothing of the prompt, to be compared with others.

        llama.cpp computes neighbouring slots in one pass over the weights, and gaps between them
        are filled with padding (see `scheduling.padding`). Having no gaps is worth more than what
        an idle slot holds, as long as that is kept in RAM.
        """
        index = slot.index
        busy = [one.index for one in self._slots if one.busy]
        span = max([index, *busy]) - min([index, *busy])
        num_neighbours = (index - 1 in busy) + (index + 1 in busy)
        is_full = int(bool(slot.tokens))
        if prefers_empty:
            return is_full, span, -num_neighbours, slot.last_used
        return span, -num_neighbours, is_full, slot.last_used


def _num_continued(slot: Slot, num_reusable: Callable[[Slot], int]) -> int:
    """Return how many tokens a slot serves, or 0 where most of the slot would be lost."""
    num_tokens = num_reusable(slot)
    return num_tokens if 2 * num_tokens >= len(slot.tokens) else 0
