"""The number of tokens to draft in a step."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmd.worker.scheduling.draft_length import plan_drafts
from llmd.worker.scheduling.prompt_lookup import PromptLookup
from llmd.worker.scheduling.sequence import Sequence
from llmd.worker.scheduling.step_cost import StepCost
from tests.support.fake_backend import FakeBackend, parrot
from tests.support.scheduler_harness import Harness

FREE = {1: 1.0, 512: 1.0}
"""Seconds of a step by its rows, where more rows take no longer."""

EXPENSIVE = {1: 1.0, 512: 512.0}
"""Seconds of a step by its rows, where each row takes as long as the first."""

COPIED = list(range(100, 120))
LIKELY = [*COPIED, *COPIED[:16]]
UNLIKELY = [1, 2, 3, 4, 5]


class DecodingSequences:
    """Decoding sequences with the given tokens, and a cost model with the given times."""

    def __init__(
        self, times: dict[int, float], *texts: list[int], num_cells: int = 0, can_pad: bool = False
    ) -> None:
        self.backend = FakeBackend(
            max_sequences=len(texts),
            max_batch_tokens=512,
            max_draft_tokens=7,
            num_cells=num_cells,
        )
        self.cost = StepCost(times, 512, can_pad=can_pad)
        harness = Harness(max_sequences=len(texts))
        self.sequences: list[Sequence] = []
        for text in texts:
            harness.submit("x:")
            (sequence,) = harness.scheduler._waiting
            harness.scheduler.cancel(sequence.request.id)
            sequence.tokens = list(text)
            sequence.lookup = PromptLookup(7)
            self.sequences.append(sequence)

    def plan(self) -> tuple[int, list[int]]:
        """Return how many tokens each slot takes, and the length of each sequence's draft."""
        drafts = plan_drafts(self.backend, self.cost, self.sequences)
        return drafts.num_each, [len(draft) for draft in drafts.tokens]


def test_nothing_is_drafted_where_rows_cost_more_than_they_gain() -> None:
    """Even likely tokens are not drafted if each row takes as long as the first."""
    assert DecodingSequences(EXPENSIVE, LIKELY).plan() == (1, [0])


def test_drafts_are_longest_where_rows_cost_nothing() -> None:
    """A slot without a draft takes as many tokens as the others, so that all are one pass."""
    assert DecodingSequences(FREE, LIKELY).plan() == (8, [7])
    assert DecodingSequences(FREE, LIKELY, UNLIKELY).plan() == (8, [7, 0])


def test_drafts_of_few_sequences_do_not_delay_the_others() -> None:
    """A draft that pays for one sequence alone does not among seven that have no draft."""
    times = {1: 1.0, 16: 2.5, 32: 5.0}
    assert DecodingSequences(times, LIKELY).plan() == (8, [7])
    assert DecodingSequences(times, LIKELY, *[UNLIKELY] * 7).plan() == (1, [0] * 8)


def test_drafts_that_were_wrong_are_not_continued() -> None:
    """A sequence whose drafts were always wrong gets no further draft."""
    decoding = DecodingSequences({1: 1.0, 2: 1.5, 8: 3.0}, LIKELY)
    assert decoding.plan()[0] > 1
    for _ in range(40):
        lookup = decoding.sequences[0].lookup
        assert lookup is not None
        lookup.record(7, 0)
    assert decoding.plan() == (1, [0])


def test_one_memory_for_all_slots_needs_no_padding() -> None:
    """If all slots share their cells, any rows are one pass, and only drafts add rows."""
    times = {1: 1.0, 15: 2.5, 64: 64.0}
    decoding = DecodingSequences(times, LIKELY, *[UNLIKELY] * 7, num_cells=2000)
    num_each, draft_lengths = decoding.plan()
    assert num_each == 8
    assert draft_lengths == [7] + [0] * 7


def test_a_group_is_completed_where_that_takes_less_time() -> None:
    """Where full groups of four rows take less time, a step has a multiple of four rows."""
    grouped = {1: 4.0, 2: 6.0, 4: 8.0, 7: 14.0, 8: 10.0, 16: 14.0, 32: 24.0}
    decoding = DecodingSequences(grouped, LIKELY, can_pad=True)
    assert decoding.plan()[0] % 4 == 0


def test_no_draft_is_longer_than_the_room_in_the_fullest_slot() -> None:
    """The fullest slot takes as many tokens as the others, even if all of them are padding."""
    full = [*LIKELY, *range(200)][-36:] + [7] * 218
    decoding = DecodingSequences(FREE, LIKELY, full)
    assert len(full) == decoding.backend.num_context_tokens - 2
    assert decoding.plan()[0] == 3


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=250), min_size=1, max_size=12),
    st.sampled_from([FREE, EXPENSIVE, {1: 1.0, 4: 1.5, 16: 3.0, 512: 60.0}]),
    st.sampled_from([0, 4000]),
)
def test_drafts_fit_into_the_step_and_the_slots(
    texts: list[list[int]], times: dict[int, float], num_cells: int
) -> None:
    """The drafts of any texts fit into the batch, the rows with logits and the context."""
    decoding = DecodingSequences(times, *texts, num_cells=num_cells)
    num_each, draft_lengths = decoding.plan()
    backend = decoding.backend
    assert num_each * len(texts) <= backend.max_batch_tokens
    assert all(num < num_each for num in draft_lengths)
    assert sum(1 + num for num in draft_lengths) <= backend.max_output_rows
    longest = max(map(len, texts))
    assert num_each == 1 or longest - 1 + num_each <= backend.num_context_tokens


def _run(num_sequences: int, max_draft_tokens: int) -> Harness:
    harness = Harness(
        next_token=parrot,
        max_draft_tokens=max_draft_tokens,
        max_sequences=num_sequences,
        max_batch_tokens=64,
    )
    for number in range(num_sequences):
        harness.submit(f"hi {number}:", session=str(number), max_tokens=40)
    harness.run()
    return harness


def test_drafts_do_not_change_answers_side_by_side() -> None:
    """The same answers take fewer steps, in which all slots take the same number of tokens."""
    plain, drafted = _run(6, 0), _run(6, 7)
    for request in range(1, 7):
        assert drafted.text(request) == plain.text(request)
    assert len(drafted.backend.steps) < len(plain.backend.steps)
    answers = [step for step in drafted.backend.steps[1:] if sum(step.values()) > len(step)]
    assert answers
    assert all(len(set(step.values())) == 1 for step in answers)
