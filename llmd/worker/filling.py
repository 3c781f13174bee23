"""What goes into a step: a token of every sequence that decodes, guesses, chunks of prompts."""

from __future__ import annotations

from collections.abc import Mapping

from llmd.worker.backend import Backend
from llmd.worker.sequence import Sequence, Status
from llmd.worker.slots import Slot
from llmd.worker.waiting import urgency

MAX_GUESSING = 4
"""Sequences that decode side by side while tokens are guessed.

With more, the cores are busy with the rows there are: measured with 8 and with 16 sequences, a
guess for each lost a fifth of the throughput (`make bench ARGS="--scenario load"`).
"""

Row = tuple[Sequence, int]
"""A sequence, and its first row in the batch that gives a token."""


def fill(
    backend: Backend, running: Mapping[Sequence, Slot], max_read: int
) -> tuple[list[Row], int]:
    """Put the tokens of a step into the batch: (rows that give tokens, how many there are).

    Beside sequences that decode at most `max_read` tokens of prompts are read.

    Rows go by slot: llama.cpp computes those of neighbouring slots in one pass over the
    weights, and begins another wherever the order is broken.
    """
    in_order = sorted(running, key=lambda one: running[one].index)
    decoding = [one for one in in_order if one.status is Status.DECODE]
    shares: dict[Sequence, int] = {}
    if len(decoding) == len(in_order):
        _guess(backend, decoding)
    else:
        room = backend.max_batch_tokens - len(decoding)
        prefill = [one for one in running if one.status is Status.PREFILL]
        shares = _share_out(prefill, min(room, max_read) if decoding else room)
    rows: list[Row] = []
    num_used = 0
    for sequence in in_order:
        slot = running[sequence].index
        if sequence.status is Status.DECODE:
            rows.append((sequence, num_used))
            num_used += _add_last(backend, sequence, slot)
        elif share := shares.get(sequence):
            num_used += _add_prompt(backend, sequence, slot, share)
            if not sequence.num_uncomputed:
                rows.append((sequence, num_used - 1))
    return rows, num_used


def _guess(backend: Backend, decoding: list[Sequence]) -> None:
    """Guess what comes next of all, or of none: nothing while a prompt is read.

    As many tokens of each: with more of one than of another, the rest is a pass of its own.
    """
    limit = 0
    if 0 < len(decoding) <= MAX_GUESSING:
        limit = min(backend.max_output_rows, backend.max_batch_tokens) // len(decoding) - 1
    for sequence in decoding:
        sequence.guess = []
        if limit and sequence.draft is not None:
            most = min(limit, sequence.num_possible - 1)
            sequence.guess = sequence.draft.guess(sequence.tokens, most)
        limit = len(sequence.guess)
    for sequence in decoding:
        del sequence.guess[limit:]


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


def _add_prompt(backend: Backend, sequence: Sequence, slot: int, num_tokens: int) -> int:
    """Put the next tokens of a prompt in; return how many."""
    begin, last = sequence.num_computed, len(sequence.tokens) - 1
    for position in range(begin, begin + num_tokens):
        backend.add(sequence.tokens[position], position, slot, output=position == last)
    sequence.num_computed += num_tokens
    return num_tokens


def _add_last(backend: Backend, sequence: Sequence, slot: int) -> int:
    """Put a sequence's last token in, and the guess of the next ones; return how many."""
    for offset, token in enumerate([sequence.tokens[-1], *sequence.guess]):
        backend.add(token, sequence.num_computed + offset, slot, output=True)
    sequence.num_computed += 1
    return 1 + len(sequence.guess)
