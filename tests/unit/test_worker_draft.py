from __future__ import annotations

from llmd.worker.draft import MAX_PAUSE, NGRAM, Draft
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
    assert draft.guess([1] * (NGRAM - 1), 16) == []
    assert draft.guess([1, 2, 3, 4, 5, 6], 16) == []
    assert Draft(3).guess(ASKED, 0) == []


def test_wrong_guesses_become_rare_and_a_right_one_brings_them_back() -> None:
    """So a text in which nothing is copied costs next to nothing."""
    draft = Draft(3)
    pauses: list[int] = []
    for _ in range(9):
        num_paused = 0
        while not draft.guess(ASKED, 16):
            num_paused += 1
        pauses.append(num_paused)
        draft.learn(3, 0)
    assert pauses == [0, 1, 2, 4, 8, 16, 32, 64, MAX_PAUSE]
    while not draft.guess(ASKED, 16):
        pass
    draft.learn(3, 1)
    assert draft.guess(ASKED, 16) == [4, 5, 9]
    assert (draft.num_drafted, draft.num_accepted) == (30, 1)


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
