"""How many tokens to draft in a step: as many as should bring the most tokens a second."""

from __future__ import annotations

from dataclasses import dataclass

from llmd.worker.backend import Backend
from llmd.worker.scheduling.sequence import Sequence
from llmd.worker.scheduling.step_cost import StepCost

MIN_GAIN = 1.05
"""Draft only for an expected gain of 5 %: probabilities are estimates, and sampling costs time."""


@dataclass(frozen=True)
class Drafts:
    """The drafts of a step.

    Where each slot has cells of its own, llama.cpp computes the same number of tokens of each
    slot in one pass, and the rest of longer ones in another. So every slot takes `num_each`
    tokens: its last one, its draft, and padding.
    """

    num_each: int
    tokens: list[list[int]]
    """The draft of each sequence, each shorter than `num_each`."""


def plan_drafts(backend: Backend, cost: StepCost, decoding: list[Sequence]) -> Drafts:
    """Draft the next tokens of sequences, as far as that pays."""
    none = Drafts(1, [[] for _ in decoding])
    max_tokens = _max_tokens(backend, decoding) if backend.max_draft_tokens else 0
    if max_tokens <= 0:
        return none
    expected = [0.0] * max_tokens
    counts = [0] * max_tokens
    drafts: list[list[int]] = []
    for sequence in decoding:
        lookup = sequence.lookup
        if lookup is None:
            drafts.append([])
            continue
        drafts.append(lookup.draft(sequence.tokens, min(max_tokens, sequence.num_remaining - 1)))
        for offset, probability in enumerate(lookup.probabilities):
            expected[offset] += probability
            counts[offset] += 1
    num_each = _best(backend, cost, decoding, expected, counts)
    return Drafts(num_each, [draft[: num_each - 1] for draft in drafts])


def _max_tokens(backend: Backend, decoding: list[Sequence]) -> int:
    """Return how many tokens may be drafted for each sequence: every slot must have room."""
    longest = max(len(sequence.tokens) for sequence in decoding)
    return min(
        backend.max_draft_tokens,
        backend.max_batch_tokens // len(decoding) - 1,
        backend.num_context_tokens - longest,
    )


def _best(
    backend: Backend,
    cost: StepCost,
    decoding: list[Sequence],
    expected: list[float],
    counts: list[int],
) -> int:
    """Return the number of tokens for each sequence that brings the most a second.

    For the first, second … drafted token, `counts` says how many sequences have one, `expected`
    how many of these should be right.
    """
    num = len(decoding)
    num_context = sum(len(sequence.tokens) for sequence in decoding) // num
    best, least = 1, MIN_GAIN * num / cost.step_s(num, num_context)
    num_expected, num_outputs = float(num), num
    for num_more, (right, count) in enumerate(zip(expected, counts, strict=True), 1):
        num_outputs += count
        if not count or num_outputs > backend.max_output_rows:
            break
        num_expected += right
        num_rows = num_outputs if backend.num_cells else num * (1 + num_more)
        rate = num_expected / cost.step_s(num_rows, num_context)
        if rate >= least:
            best, least = 1 + num_more, rate
    can_grow = 1 < best <= len(expected) and not backend.num_cells
    if can_grow and cost.is_faster_with(num * best, num * (best + 1)):
        best += 1
    return best
