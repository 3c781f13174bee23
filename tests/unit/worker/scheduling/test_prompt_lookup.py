from __future__ import annotations

import pytest

from llmd.worker.scheduling.prompt_lookup import PromptLookup
from tests.support.fake_backend import parrot
from tests.support.scheduler_harness import Harness

ASKED = [1, 2, 3, 4, 5, 9, 1, 2, 3]


def test_what_stood_behind_the_same_tokens_is_guessed() -> None:
    """As many as are asked for."""
    assert PromptLookup(3).draft(ASKED, 16) == [4, 5, 9]
    assert PromptLookup(8).draft(ASKED, 2) == [4, 5]
    assert PromptLookup(6).draft(ASKED, 16) == [4, 5, 9, 1, 2, 3]


def test_text_that_repeats_itself_is_guessed_to_go_on_so() -> None:
    """Beyond what there is of it."""
    assert PromptLookup(8).draft(ASKED, 16) == [4, 5, 9, 1, 2, 3, 4, 5]
    assert PromptLookup(4).draft([7, 7, 7, 7], 16) == [7, 7, 7, 7]


def test_the_latest_place_counts() -> None:
    """A text that was changed is copied as it is now."""
    assert PromptLookup(1).draft([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3], 16) == [5]


def test_the_longest_run_counts_most() -> None:
    """Though shorter ones stood nearer to the end."""
    assert PromptLookup(1).draft([1, 2, 3, 4, 2, 3, 5, 3, 6, 1, 2, 3], 16) == [4]
    assert PromptLookup(1).draft([8, 2, 3, 4, 3, 5, 2, 3], 16) == [4]
    assert PromptLookup(1).draft([8, 3, 4, 5, 3], 16) == [4]


def test_nothing_is_guessed_from_too_little() -> None:
    """Where the tokens never stood before, and where there is no room."""
    lookup = PromptLookup(3)
    assert lookup.draft([], 16) == []
    assert lookup.draft([1], 16) == []
    assert lookup.draft([1, 2, 3, 4, 5, 6], 16) == []
    assert lookup.draft(ASKED, 0) == []
    assert lookup.probabilities == []


def test_more_text_that_agrees_makes_a_guess_likelier() -> None:
    """And each further token is less likely than the one before it."""
    copied = list(range(100, 140))
    first = []
    for num_agreeing in (1, 2, 4, 8, 16):
        lookup = PromptLookup(3)
        lookup.draft([*copied, *copied[:num_agreeing]], 16)
        assert lookup.probabilities == sorted(lookup.probabilities, reverse=True)
        first.append(lookup.probabilities[0])
    assert first == sorted(set(first))


@pytest.mark.parametrize("right", [0, 3])
def test_chances_become_those_of_the_text(*, right: int) -> None:
    """A text in which nothing is copied gets low ones, and keeps them while nothing is."""
    lookup = PromptLookup(3)
    lookup.draft(ASKED, 16)
    before = lookup.probabilities
    for _ in range(40):
        lookup.record(3, right)
    lookup.draft(ASKED, 16)
    if right:
        assert lookup.probabilities[2] > 0.8 > before[2]
    else:
        assert lookup.probabilities[0] < 0.3 < before[0]
    assert (lookup.num_drafted, lookup.num_accepted) == (120, 40 * right)


def test_an_answer_that_repeats_itself_takes_fewer_steps() -> None:
    """And is the same, to the last token."""
    plain = Harness(next_token=parrot)
    drafted = Harness(next_token=parrot, max_draft_tokens=3)
    for harness in (plain, drafted):
        harness.submit("hi:", max_tokens=60)
        harness.run()
    assert drafted.text(1) == plain.text(1)
    assert drafted.reason(1) == plain.reason(1) == "length"
    assert len(drafted.backend.steps) < len(plain.backend.steps) / 2
