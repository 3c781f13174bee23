from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st

from llmd.worker.llama.token_cache import CHARS_PER_ENTRY, TokenCache


class Tokeniser:
    """A token a character; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, text: str) -> array[int]:
        self.asked.append(text)
        return array("i", list(text.encode()))


def test_text_is_tokenised_once() -> None:
    """The next turn brings the turns before along."""
    tokenise = Tokeniser()
    cache = TokenCache(tokenise)
    assert (
        cache.tokens("ann", "hello") == cache.tokens("ann", "hello") == array("i", list(b"hello"))
    )
    assert tokenise.asked == ["hello"]


def test_text_of_one_owner_is_not_looked_up_for_another() -> None:
    """How long it takes would tell that somebody had it."""
    tokenise = Tokeniser()
    cache = TokenCache(tokenise)
    cache.tokens("ann", "secret")
    cache.tokens("bob", "secret")
    assert tokenise.asked == ["secret", "secret"]


def test_forgotten_owner_leaves_no_text() -> None:
    """What others have stays."""
    tokenise = Tokeniser()
    cache = TokenCache(tokenise)
    cache.tokens("ann", "mine")
    cache.tokens("bob", "his")
    cache.forget("ann")
    assert cache.num_chars == CHARS_PER_ENTRY + len("his")
    cache.tokens("ann", "mine")
    cache.tokens("bob", "his")
    assert tokenise.asked == ["mine", "his", "mine"]


def test_text_longest_unused_goes_first() -> None:
    """One that is asked for again is young again; one too long for all of them is not kept."""
    tokenise = Tokeniser()
    cache = TokenCache(tokenise, max_chars=2 * (CHARS_PER_ENTRY + 3))
    for text in ("abc", "def", "abc", "ghi", "x" * 90, "abc"):
        cache.tokens("ann", text)
    assert tokenise.asked == ["abc", "def", "ghi", "x" * 90]
    cache.tokens("ann", "def")
    assert tokenise.asked[-1] == "def"


@given(st.lists(st.tuples(st.sampled_from("ab"), st.text("xyz", max_size=9))), st.integers(0, 300))
def test_tokens_are_right_within_the_bound_whatever_is_asked(
    asked: list[tuple[str, str]], max_chars: int
) -> None:
    """Nobody gets another's tokens, and nothing grows."""
    cache = TokenCache(Tokeniser(), max_chars)
    for owner, text in asked:
        assert cache.tokens(owner, text).tolist() == list(text.encode())
        assert cache.num_chars <= max_chars
