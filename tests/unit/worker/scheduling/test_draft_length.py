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
"""More rows take no longer."""

DEAR = {1: 1.0, 512: 512.0}
"""Each row takes as long as the first."""

COPIED = list(range(100, 120))
LIKELY = [*COPIED, *COPIED[:16]]
UNLIKELY = [1, 2, 3, 4, 5]


class Crowd:
    """Sequences with these tokens, and a model of which steps take these times."""

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

    def guess(self) -> tuple[int, list[int]]:
        """Return how many tokens each takes, and how many each guessed."""
        drafts = plan_drafts(self.backend, self.cost, self.sequences)
        return drafts.num_each, [len(draft) for draft in drafts.tokens]


def test_nothing_is_guessed_where_rows_cost_more_than_they_bring() -> None:
    """However likely they are."""
    assert Crowd(DEAR, LIKELY).guess() == (1, [0])


def test_all_is_guessed_where_rows_cost_nothing() -> None:
    """Those without a guess take as many tokens, since more of one would be another pass."""
    assert Crowd(FREE, LIKELY).guess() == (8, [7])
    assert Crowd(FREE, LIKELY, UNLIKELY).guess() == (8, [7, 0])


def test_guesses_of_few_do_not_make_the_others_wait() -> None:
    """What pays for one alone does not among many that have nothing to guess."""
    times = {1: 1.0, 16: 2.5, 32: 5.0}
    assert Crowd(times, LIKELY).guess() == (8, [7])
    assert Crowd(times, LIKELY, *[UNLIKELY] * 7).guess() == (1, [0] * 8)


def test_guesses_that_were_wrong_are_made_no_more() -> None:
    """Until they would have been right more often."""
    crowd = Crowd({1: 1.0, 2: 1.5, 8: 3.0}, LIKELY)
    assert crowd.guess()[0] > 1
    for _ in range(40):
        lookup = crowd.sequences[0].lookup
        assert lookup is not None
        lookup.record(7, 0)
    assert crowd.guess() == (1, [0])


def test_one_memory_for_all_needs_no_rows_without_a_meaning() -> None:
    """There rows of any sequences are one pass: only the guesses count."""
    times = {1: 1.0, 15: 2.5, 64: 64.0}
    crowd = Crowd(times, LIKELY, *[UNLIKELY] * 7, num_cells=2000)
    num_each, guesses = crowd.guess()
    assert num_each == 8
    assert guesses == [7] + [0] * 7


def test_a_group_is_made_full_where_that_takes_less_time() -> None:
    """With the third token of each."""
    in_fours = {1: 4.0, 2: 6.0, 4: 8.0, 7: 14.0, 8: 10.0, 16: 14.0, 32: 24.0}
    crowd = Crowd(in_fours, LIKELY, can_pad=True)
    assert crowd.guess()[0] % 4 == 0


def test_nobody_takes_more_than_the_fullest_slot_has_room_for() -> None:
    """It takes as many tokens as the others, though none of its own."""
    full = [*LIKELY, *range(200)][-36:] + [7] * 218
    crowd = Crowd(FREE, LIKELY, full)
    assert len(full) == crowd.backend.num_context_tokens - 2
    assert crowd.guess()[0] == 3


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=250), min_size=1, max_size=12),
    st.sampled_from([FREE, DEAR, {1: 1.0, 4: 1.5, 16: 3.0, 512: 60.0}]),
    st.sampled_from([0, 4000]),
)
def test_guesses_fit_into_the_step_and_the_slots(
    texts: list[list[int]], times: dict[int, float], num_cells: int
) -> None:
    """Whatever was said."""
    crowd = Crowd(times, *texts, num_cells=num_cells)
    num_each, guesses = crowd.guess()
    backend = crowd.backend
    assert num_each * len(texts) <= backend.max_batch_tokens
    assert all(num < num_each for num in guesses)
    assert sum(1 + num for num in guesses) <= backend.max_output_rows
    longest = max(map(len, texts))
    assert num_each == 1 or longest - 1 + num_each <= backend.num_context_tokens


def _talk(num_sequences: int, max_draft_tokens: int) -> Harness:
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


def test_many_side_by_side_answer_the_same_with_guesses() -> None:
    """Each slot takes as many tokens in every step, and keeps only its own."""
    plain, drafted = _talk(6, 0), _talk(6, 7)
    for request in range(1, 7):
        assert drafted.text(request) == plain.text(request)
    assert len(drafted.backend.steps) < len(plain.backend.steps)
    answers = [step for step in drafted.backend.steps[1:] if sum(step.values()) > len(step)]
    assert answers
    assert all(len(set(step.values())) == 1 for step in answers)
