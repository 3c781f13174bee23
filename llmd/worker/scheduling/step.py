"""A step: what one `llama_decode` computes, planned as a value before the KV memory is changed.

A step holds chunks of prompts, or the next tokens of answers with their drafts. Not both:
llama.cpp computes the same number of tokens of each sequence in one pass over the weights, and
the rest of longer ones in another. A mixed step would be two passes all the same, and of less
favourable numbers of rows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from llmd.worker.backend import Backend
from llmd.worker.kv.slots import Slot
from llmd.worker.scheduling.draft_length import plan_drafts
from llmd.worker.scheduling.padding import padding_slots, tail_lengths
from llmd.worker.scheduling.queue import urgency
from llmd.worker.scheduling.sequence import Sequence, Status
from llmd.worker.scheduling.step_cost import GROUP, StepCost


@dataclass(frozen=True, slots=True)
class Chunk:
    """The rows of one slot: some of a sequence's tokens, its draft, then padding.

    ``sequence.tokens[begin:end]`` and `draft` take the positions from `begin` on. An idle slot
    that is padded has no sequence.
    """

    slot: int
    begin: int
    end: int
    sequence: Sequence | None = None
    draft: list[int] = field(default_factory=list)
    num_padding: int = 0

    @property
    def tokens(self) -> list[int]:
        """The tokens to compute, without padding."""
        if self.sequence is None:
            return []
        return [*self.sequence.tokens[self.begin : self.end], *self.draft]

    @property
    def samples(self) -> bool:
        """Whether a token is sampled after the step: the chunk ends with the last token."""
        return self.sequence is not None and self.end == len(self.sequence.tokens)


@dataclass(frozen=True)
class Step:
    """The chunks of one batch, ordered by slot.

    llama.cpp computes neighbouring slots in one pass over the weights, and begins another pass
    wherever the order is broken.
    """

    chunks: list[Chunk]
    is_prefill: bool
    num_padding_outputs: int = 0
    """Rows of padding that have logits too, so that the rows with logits make full groups."""

    @property
    def num_tokens(self) -> int:
        """The number of tokens and drafted tokens, without padding."""
        return sum(chunk.end - chunk.begin + len(chunk.draft) for chunk in self.chunks)

    def run(self, backend: Backend) -> list[tuple[Chunk, int]]:
        """Compute the step, and take the padding out of the slots. Raise as `decode` does.

        Return the chunks that sample, each with its first row that has logits; the rows of its
        draft follow.
        """
        rows: list[tuple[Chunk, int]] = []
        row, num_padding_outputs = 0, self.num_padding_outputs
        for chunk in self.chunks:
            position = chunk.begin
            first_output = chunk.end - 1 if chunk.samples else sys.maxsize
            if chunk.samples:
                rows.append((chunk, row + first_output - position))
            for token in chunk.tokens:
                backend.add(token, position, chunk.slot, output=position >= first_output)
                position += 1
            for _ in range(chunk.num_padding):
                backend.add(0, position, chunk.slot, output=num_padding_outputs > 0)
                num_padding_outputs -= 1
                position += 1
            row += position - chunk.begin
        backend.decode()
        for chunk in self.chunks:
            if chunk.num_padding:
                backend.truncate(chunk.slot, chunk.end + len(chunk.draft))
        return rows

    def commit(self) -> None:
        """Note in the sequences what the slots hold after the step."""
        for chunk in self.chunks:
            if chunk.sequence is not None:
                chunk.sequence.num_computed = chunk.end
                chunk.sequence.num_drafted = len(chunk.draft)


IdleLengths = Callable[[], Mapping[int, int]]
"""A function that returns the number of tokens in each slot that no sequence uses."""


def plan_step(
    backend: Backend,
    cost: StepCost,
    running: Mapping[Sequence, Slot],
    idle_lengths: IdleLengths,
    max_read_tokens: int,
) -> Step:
    """Plan to read up to `max_read_tokens` of prompts, or to go on with the answers.

    With 0, the answers go on if there are any.
    """
    by_slot = sorted(((slot.index, one) for one, slot in running.items()), key=lambda pair: pair[0])
    prefill = [one for one in running if one.status is Status.PREFILL]
    if prefill and (max_read_tokens or len(prefill) == len(by_slot)):
        room = min(max_read_tokens or backend.max_batch_tokens, backend.max_batch_tokens)
        return _plan_prefill(backend, cost, by_slot, _share_out(prefill, room))
    decoding = [(slot, one) for slot, one in by_slot if one.status is Status.DECODE]
    paused = {slot: one.num_computed for slot, one in by_slot if one.status is Status.PREFILL}
    return _plan_decode(backend, cost, decoding, lambda: {**idle_lengths(), **paused})


def _plan_prefill(
    backend: Backend,
    cost: StepCost,
    by_slot: list[tuple[int, Sequence]],
    shares: dict[Sequence, int],
) -> Step:
    padding = dict.fromkeys(shares, 0)
    if cost.pads_to_groups:
        _cut_to_groups(shares)
        padding = _tails(backend, cost, shares)
    chunks = [
        Chunk(
            slot,
            sequence.num_computed,
            sequence.num_computed + shares[sequence],
            sequence,
            num_padding=padding[sequence],
        )
        for slot, sequence in by_slot
        if sequence in shares
    ]
    return Step(chunks, is_prefill=True)


def _plan_decode(
    backend: Backend,
    cost: StepCost,
    decoding: list[tuple[int, Sequence]],
    idle_lengths: IdleLengths,
) -> Step:
    drafts = plan_drafts(backend, cost, [sequence for _, sequence in decoding])
    # With one memory for all slots, rows of any sequences are one pass: padding would cost more.
    num_each = 1 if backend.num_cells else drafts.num_each
    chunks = [
        Chunk(
            slot,
            sequence.num_computed,
            sequence.num_computed + 1,
            sequence,
            draft,
            num_padding=max(0, num_each - 1 - len(draft)),
        )
        for (slot, sequence), draft in zip(decoding, drafts.tokens, strict=True)
    ]
    num_padding_outputs = 0
    if cost.pads_to_groups and len(decoding) * drafts.num_each > 1:
        num_outputs = sum(1 + len(draft) for draft in drafts.tokens)
        num_padding_outputs = min(-num_outputs % GROUP, backend.max_output_rows - num_outputs)
        slots = [slot for slot, _ in decoding]
        chunks += _idle_padding(backend, cost, slots, idle_lengths(), drafts.num_each)
        chunks.sort(key=lambda chunk: chunk.slot)
    return Step(chunks, is_prefill=False, num_padding_outputs=num_padding_outputs)


def _idle_padding(
    backend: Backend,
    cost: StepCost,
    slots: list[int],
    idle_lengths: Mapping[int, int],
    num_each: int,
) -> list[Chunk]:
    """Return the padding in idle slots that makes the step shorter, if any does."""
    max_held = backend.num_context_tokens - num_each
    free = {slot: num_held for slot, num_held in idle_lengths.items() if num_held <= max_held}
    found = padding_slots(cost, slots, free, num_each)
    if (len(slots) + len(found)) * num_each > backend.max_batch_tokens:
        return []
    return [Chunk(slot, free[slot], free[slot], num_padding=num_each) for slot in found]


def _share_out(prefill: list[Sequence], room: int) -> dict[Sequence, int]:
    """Return how many tokens to read of each prompt: a part of the first, and others whole.

    llama.cpp reads the same number of tokens of each in one pass, and the rest of longer ones in
    another. Parts of several prompts would leave such rests in every step.
    """
    prefill.sort(key=urgency)
    shares: dict[Sequence, int] = {}
    for sequence in prefill:
        wanted = _num_next(sequence)
        num_tokens = min(wanted, room)
        if not num_tokens or (shares and num_tokens < wanted):
            sequence.num_passed_over += 1
        else:
            shares[sequence] = num_tokens
            room -= num_tokens
    return shares


def _num_next(sequence: Sequence) -> int:
    """Return how many tokens may be read at once: up to the next point whose state is kept."""
    points = [sequence.num_shareable, *sequence.checkpoints]
    ahead = [point - sequence.num_computed for point in points if point > sequence.num_computed]
    return min([sequence.num_unread, *ahead])


def _cut_to_groups(shares: dict[Sequence, int]) -> None:
    """Let a part of a prompt end with a full group; the rest is read in another step anyway."""
    for sequence, num_tokens in shares.items():
        if GROUP < num_tokens < _num_next(sequence):
            shares[sequence] -= num_tokens % GROUP


def _tails(backend: Backend, cost: StepCost, shares: Mapping[Sequence, int]) -> dict[Sequence, int]:
    """Return how much padding to add behind each chunk; none where the batch is too small."""
    lengths = tail_lengths(cost, list(shares.values()))
    padding = {
        sequence: min(length, backend.num_context_tokens - sequence.num_computed - num_tokens)
        for (sequence, num_tokens), length in zip(shares.items(), lengths, strict=True)
    }
    fits = sum(shares.values()) + sum(padding.values()) <= backend.max_batch_tokens
    return padding if fits else dict.fromkeys(shares, 0)
