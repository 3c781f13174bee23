"""What goes into a step: chunks of prompts, or a token of every sequence that decodes, and guesses.

Not both: llama.cpp computes as many tokens of every sequence in one pass over the weights, and what
one has more in another. So they would be two passes all the same, and of worse numbers of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter

from llmd.worker.backend import Backend
from llmd.worker.kv.slots import Slot
from llmd.worker.scheduling.draft_length import guess
from llmd.worker.scheduling.padding import GROUP, can_fill, fillers, tails
from llmd.worker.scheduling.queue import urgency
from llmd.worker.scheduling.sequence import Sequence, Status

Row = tuple[Sequence, int]
"""A sequence, and its first row in the batch that gives a token."""

_BY_SLOT = itemgetter(0)


class Filling:
    """What was put into the batch of a step."""

    def __init__(self, backend: Backend) -> None:
        self.rows: list[Row] = []
        """Those that give tokens."""
        self.num_read = 0
        """Tokens of prompts."""
        self.num_tokens = 0
        """Of all sequences."""
        self._backend = backend
        self._borrowed: list[tuple[int, int]] = []
        """Slots that hold too many tokens after the step, and how many they should."""
        self._num_rows = 0
        self._num_spare = 0
        """Rows without a meaning whose logits are computed: they, too, are in groups."""

    def add_prompt(self, sequence: Sequence, slot: int, num_tokens: int, num_tail: int) -> None:
        """Put the next tokens of a prompt in, and some behind them that fill the last group."""
        begin, last = sequence.num_computed, len(sequence.tokens) - 1
        end = begin + num_tokens
        for position in range(begin, end):
            self._add(sequence.tokens[position], position, slot, output=position == last)
        if end > last:
            self.rows.append((sequence, self._num_rows - 1))
        sequence.num_computed = end
        self.num_read += num_tokens
        self.num_tokens += num_tokens
        self.add_filler(slot, end, num_tail)

    def add_last(self, sequence: Sequence, slot: int, num_each: int) -> None:
        """Put a sequence's last token in, the guess of the next ones, and a tail behind them."""
        self.rows.append((sequence, self._num_rows))
        position = sequence.num_computed
        self._add(sequence.tokens[-1], position, slot, output=True)
        for token in sequence.guess:
            position += 1
            self._add(token, position, slot, output=True)
        num_taken = 1 + len(sequence.guess)
        sequence.num_computed += 1
        self.num_tokens += num_taken
        if num_taken < num_each:
            self.add_filler(slot, position + 1, num_each - num_taken)

    def add_filler(self, slot: int, num_held: int, num_more: int) -> None:
        """Let tokens without a meaning fill a gap, behind what a slot holds."""
        for position in range(num_held, num_held + num_more):
            self._add(0, position, slot, output=self._num_spare > 0)
            self._num_spare -= 1
        if num_more > 0:
            self._borrowed.append((slot, num_held))

    def fill_outputs(self, num_outputs: int) -> None:
        """Let so many rows with logits, all that are wanted, make full groups with others."""
        self._num_spare = min(-num_outputs % GROUP, self._backend.max_output_rows - num_outputs)

    def run(self) -> None:
        """Compute it, and take what only filled gaps out of the slots. Raise as `decode` does."""
        took_s = self._backend.decode()
        for slot, num_held in self._borrowed:
            self._backend.truncate(slot, num_held)
        if not self.num_read:
            self._backend.step_time.note(self._num_rows, took_s)

    def _add(self, token: int, position: int, slot: int, *, output: bool) -> None:
        self._backend.add(token, position, slot, output=output)
        self._num_rows += 1


def fill(
    backend: Backend,
    running: Mapping[Sequence, Slot],
    idle: Callable[[], Mapping[int, int]],
    max_read: int,
) -> Filling:
    """Put prompts into the batch, up to `max_read` tokens, or what is next of the answers.

    With a `max_read` of 0 the answers go on, if there are any. `idle` tells the slots that nobody
    uses, with the number of tokens that each holds.

    Rows go by slot: llama.cpp computes those of neighbouring slots in one pass over the
    weights, and begins another wherever the order is broken.
    """
    in_order = sorted(((slot.index, one) for one, slot in running.items()), key=_BY_SLOT)
    prefill = [one for one in running if one.status is Status.PREFILL]
    if not prefill:
        return _decode(backend, in_order, idle)
    if max_read or len(prefill) == len(in_order):
        num_most = backend.max_batch_tokens
        return _read(backend, in_order, _share_out(prefill, min(max_read or num_most, num_most)))
    held = {slot: one.num_computed for slot, one in in_order if one.status is Status.PREFILL}
    decoding = [place for place in in_order if place[0] not in held]
    return _decode(backend, decoding, lambda: {**idle(), **held})


def _read(
    backend: Backend, in_order: list[tuple[int, Sequence]], shares: dict[Sequence, int]
) -> Filling:
    more = dict.fromkeys(shares, 0)
    if backend.computes_in_fours:
        _cut_to_groups(shares)
        more = _tails_of(backend, shares)
    filling = Filling(backend)
    for slot, sequence in in_order:
        if sequence in shares:
            filling.add_prompt(sequence, slot, shares[sequence], more[sequence])
    return filling


def _decode(
    backend: Backend,
    decoding: list[tuple[int, Sequence]],
    idle: Callable[[], Mapping[int, int]],
) -> Filling:
    sequences = [one for _, one in decoding]
    num_each = guess(backend, sequences)
    num_tail_to = 0 if backend.num_cells else num_each
    filling = Filling(backend)
    gaps: dict[int, int] = {}
    if backend.computes_in_fours and len(decoding) * num_each > 1:
        filling.fill_outputs(sum(1 + len(one.guess) for one in sequences))
        gaps = _gaps(backend, [slot for slot, _ in decoding], idle, num_each)
    if not gaps:
        # Most steps: after a decode all caches are cold, and to touch less here takes 5 us off.
        for slot, sequence in decoding:
            filling.add_last(sequence, slot, num_tail_to)
        return filling
    answers = dict(decoding)
    for slot in sorted([*answers, *gaps]):
        if slot in gaps:
            filling.add_filler(slot, gaps[slot], num_each)
        else:
            filling.add_last(answers[slot], slot, num_tail_to)
    return filling


def _gaps(
    backend: Backend, slots: list[int], idle: Callable[[], Mapping[int, int]], num_each: int
) -> dict[int, int]:
    """Return the idle slots that make the step shorter, and how many tokens each holds."""
    if not can_fill(slots):
        return {}
    num_most = backend.num_context_tokens - num_each
    free = {slot: num_held for slot, num_held in idle().items() if num_held <= num_most}
    found = fillers(slots, free, num_each)
    fits = (len(slots) + len(found)) * num_each <= backend.max_batch_tokens
    return {slot: free[slot] for slot in found} if fits else {}


def _share_out(prefill: list[Sequence], room: int) -> dict[Sequence, int]:
    """Return how many tokens of each prompt are read: of the first, and of others that are whole.

    llama.cpp reads as many tokens of each in one pass, and the rest of one in a pass of its own:
    with a part of another there would be such rests in every step.
    """
    prefill.sort(key=urgency)
    shares: dict[Sequence, int] = {}
    for sequence in prefill:
        wanted = _num_next(sequence)
        num_tokens = min(wanted, room)
        if not num_tokens or (shares and num_tokens < wanted):
            sequence.num_waits += 1
        else:
            shares[sequence] = num_tokens
            room -= num_tokens
    return shares


def _num_next(sequence: Sequence) -> int:
    """Return how many tokens may be read at once: a beginning to keep is read by itself."""
    num_shareable = sequence.num_shareable - sequence.num_computed
    return num_shareable if num_shareable > 0 else sequence.num_uncomputed


def _cut_to_groups(shares: dict[Sequence, int]) -> None:
    """Let the first part of a prompt end with a group; the rest comes in another step."""
    for sequence, num_tokens in shares.items():
        if GROUP < num_tokens < _num_next(sequence):
            shares[sequence] -= num_tokens % GROUP


def _tails_of(backend: Backend, shares: Mapping[Sequence, int]) -> dict[Sequence, int]:
    """Return how many tokens to add behind each piece: none where they would be too many."""
    more = {
        sequence: min(
            num_tail, backend.num_context_tokens - sequence.num_computed - shares[sequence]
        )
        for sequence, num_tail in zip(shares, tails(list(shares.values())), strict=True)
    }
    fits = sum(shares.values()) + sum(more.values()) <= backend.max_batch_tokens
    return more if fits else dict.fromkeys(shares, 0)
