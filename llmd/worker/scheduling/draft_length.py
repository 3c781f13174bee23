"""How much to guess in a step: as much as is likely to bring more tokens in a second."""

from __future__ import annotations

from llmd.worker.backend import Backend
from llmd.worker.scheduling.padding import GROUP
from llmd.worker.scheduling.sequence import Sequence

MIN_GAIN = 1.05
"""Chances are estimates, and to sample and to take back costs time, too."""


def guess(backend: Backend, decoding: list[Sequence]) -> int:
    """Let sequences guess what comes next; return how many tokens of each go into the step.

    Where each slot has cells of its own, llama.cpp computes as many tokens of each in one pass and
    what one has more in another. So those with a shorter guess, or none, take as many; what is
    behind their guess has no meaning.
    """
    limit = _limit(backend, decoding) if backend.max_draft_tokens else 0
    if limit <= 0:
        return 1
    chances = [0.0] * limit
    counts = [0] * limit
    for sequence in decoding:
        if sequence.draft is not None:
            sequence.guess = sequence.draft.guess(
                sequence.tokens, min(limit, sequence.num_possible - 1)
            )
            for offset, chance in enumerate(sequence.draft.chances):
                chances[offset] += chance
                counts[offset] += 1
    num_each = _best(backend, len(decoding), chances, counts)
    for sequence in decoding:
        del sequence.guess[num_each - 1 :]
    return num_each


def _limit(backend: Backend, decoding: list[Sequence]) -> int:
    """Return how many tokens of each may be guessed: there must be room for them in every slot."""
    longest = max(len(sequence.tokens) for sequence in decoding)
    return min(
        backend.max_draft_tokens,
        backend.max_batch_tokens // len(decoding) - 1,
        backend.num_context_tokens - longest,
    )


def _best(backend: Backend, num: int, chances: list[float], counts: list[int]) -> int:
    """Return the number of tokens of each of `num` sequences that brings the most in a second.

    Of the first, second … guessed token, `counts` tells how many sequences have one, `chances`
    how many of them may be right.
    """
    best, least = 1, MIN_GAIN * num / _time_of(backend, num)
    num_expected, num_outputs = float(num), num
    for num_more, (chance, count) in enumerate(zip(chances, counts, strict=True), 1):
        num_outputs += count
        if not count or num_outputs > backend.max_output_rows:
            break
        num_expected += chance
        num_rows = num_outputs if backend.num_cells else num * (1 + num_more)
        rate = num_expected / _time_of(backend, num_rows)
        if rate >= least:
            best, least = 1 + num_more, rate
    if 1 < best <= len(chances) and not backend.num_cells and _is_longer(backend, num, best):
        best += 1
    return best


def _time_of(backend: Backend, num_rows: int) -> float:
    """Return what so many rows take, if a group that is not full will be filled (see `padding`)."""
    took_s = backend.step_time.of(num_rows)
    if not backend.computes_in_fours or num_rows % GROUP == 0:
        return took_s
    whole = min(num_rows + GROUP - num_rows % GROUP, backend.max_batch_tokens)
    return min(took_s, backend.step_time.of(whole))


def _is_longer(backend: Backend, num: int, num_each: int) -> bool:
    """Tell whether so many tokens of each take longer than one more would."""
    of = backend.step_time.of
    return of(num * num_each) > of(num * (num_each + 1))
