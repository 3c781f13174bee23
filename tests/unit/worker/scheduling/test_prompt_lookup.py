"""Drafts by prompt lookup."""

from __future__ import annotations

import pytest

from llmd.worker.scheduling.prompt_lookup import PromptLookup
from tests.support.fake_backend import parrot
from tests.support.scheduler_harness import Harness

TOKENS = [1, 2, 3, 4, 5, 9, 1, 2, 3]


def test_tokens_that_followed_the_same_text_are_drafted() -> None:
    """A draft holds the tokens that followed the same text earlier, up to the given number."""
    assert PromptLookup(3).draft(TOKENS, 16) == [4, 5, 9]
    assert PromptLookup(8).draft(TOKENS, 2) == [4, 5]
    assert PromptLookup(6).draft(TOKENS, 16) == [4, 5, 9, 1, 2, 3]


def test_draft_of_a_repetitive_text_repeats_itself() -> None:
    """A draft continues the repetition beyond the end of the text."""
    assert PromptLookup(8).draft(TOKENS, 16) == [4, 5, 9, 1, 2, 3, 4, 5]
    assert PromptLookup(4).draft([7, 7, 7, 7], 16) == [7, 7, 7, 7]


def test_the_latest_occurrence_is_used() -> None:
    """A text that has changed is drafted as in its latest occurrence."""
    assert PromptLookup(1).draft([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3], 16) == [5]


def test_the_longest_match_is_used() -> None:
    """The longest match is used even if shorter ones are nearer to the end."""
    assert PromptLookup(1).draft([1, 2, 3, 4, 2, 3, 5, 3, 6, 1, 2, 3], 16) == [4]
    assert PromptLookup(1).draft([8, 2, 3, 4, 3, 5, 2, 3], 16) == [4]
    assert PromptLookup(1).draft([8, 3, 4, 5, 3], 16) == [4]


def test_nothing_is_drafted_without_a_match_or_without_room() -> None:
    """There is no draft if the last tokens never occurred before, or if there is no room."""
    lookup = PromptLookup(3)
    assert lookup.draft([], 16) == []
    assert lookup.draft([1], 16) == []
    assert lookup.draft([1, 2, 3, 4, 5, 6], 16) == []
    assert lookup.draft(TOKENS, 0) == []
    assert lookup.probabilities == []


def test_a_longer_match_makes_a_draft_likelier() -> None:
    """Probabilities rise with the length of the match, and fall with each further token."""
    copied = list(range(100, 140))
    first = []
    for num_agreeing in (1, 2, 4, 8, 16):
        lookup = PromptLookup(3)
        lookup.draft([*copied, *copied[:num_agreeing]], 16)
        assert lookup.probabilities == sorted(lookup.probabilities, reverse=True)
        first.append(lookup.probabilities[0])
    assert first == sorted(set(first))


@pytest.mark.parametrize("num_right", [0, 3])
def test_probabilities_adapt_to_the_text(*, num_right: int) -> None:
    """Drafts that were wrong lower the probabilities, and drafts that were right raise them."""
    lookup = PromptLookup(3)
    lookup.draft(TOKENS, 16)
    before = lookup.probabilities
    for _ in range(40):
        lookup.record(3, num_right)
    lookup.draft(TOKENS, 16)
    if num_right:
        assert lookup.probabilities[2] > 0.8 > before[2]
    else:
        assert lookup.probabilities[0] < 0.3 < before[0]
    assert (lookup.num_drafted, lookup.num_accepted) == (120, 40 * num_right)


def test_an_answer_that_repeats_itself_takes_fewer_steps() -> None:
    """A repetitive answer is the same with drafts, and takes less than half of the steps."""
    plain = Harness(next_token=parrot)
    drafted = Harness(next_token=parrot, max_draft_tokens=3)
    for harness in (plain, drafted):
        harness.submit("hi:", max_tokens=60)
        harness.run()
    assert drafted.text(1) == plain.text(1)
    assert drafted.reason(1) == plain.reason(1) == "length"
    assert len(drafted.backend.steps) < len(plain.backend.steps) / 2
