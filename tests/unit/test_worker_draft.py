from __future__ import annotations

from llmd.worker.draft import MAX_AGREEING, MIN_AGREEING, Draft
from tests.fakes import parrot
from tests.scheduling import House

ASKED = [1, 2, 3, 4, 5, 9, 1, 2, 3]


def test_what_stood_behind_the_same_tokens_is_guessed() -> None:
    """The longest run that is asked for, and no more than there is."""
    assert Draft(3).guess(ASKED, 16) == [4, 5, 9]
    assert Draft(8).guess(ASKED, 2) == [4, 5]
    assert Draft(8).guess(ASKED, 16) == [4, 5, 9, 1, 2, 3]


def test_the_latest_place_counts() -> None:
    """A text that was changed is copied as it is now."""
    assert Draft(1).guess([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3], 16) == [5]


def test_nothing_is_guessed_from_too_little() -> None:
    """Nor where the tokens never stood before, nor where there is no room."""
    draft = Draft(3)
    assert draft.guess([], 16) == []
    assert draft.guess([1] * (MIN_AGREEING - 1), 16) == []
    assert draft.guess([1, 2, 3, 4, 5, 6], 16) == []
    assert Draft(3).guess(ASKED, 0) == []


def test_after_wrong_guesses_more_of_the_text_must_agree() -> None:
    """So a text in which nothing is copied costs next to nothing; right ones bring it back."""
    draft = Draft(3)
    assert draft.guess(ASKED, 16) == [4, 5, 9]
    draft.learn(3, 1)
    assert draft.guess(ASKED, 16) == []
    copied = list(range(100, 140))
    again = [*ASKED, *copied, *copied[:30]]
    assert draft.guess(again, 16) == copied[30:33]
    for _ in range(10):
        draft.learn(3, 0)
    assert draft.guess([*ASKED, *copied, *copied[: MAX_AGREEING - 1]], 16) == []
    for _ in range(MAX_AGREEING):
        draft.learn(3, 3)
    assert Draft(3).guess(ASKED, 16) == [4, 5, 9]
    assert (draft.num_drafted, draft.num_accepted) == (3 + 30 + 3 * MAX_AGREEING, 1 + 72)


def test_an_answer_that_repeats_itself_takes_fewer_steps() -> None:
    """And is the same, to the last token."""
    plain = House(next_token=parrot)
    drafted = House(next_token=parrot, max_draft_tokens=3)
    for house in (plain, drafted):
        house.submit("hi:", max_tokens=60)
        house.run()
    assert drafted.text(1) == plain.text(1)
    assert drafted.reason(1) == plain.reason(1) == "length"
    assert len(drafted.backend.steps) < len(plain.backend.steps) / 2
