from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st

from llmd.worker.llama.token_cache import CHARS_PER_ENTRY, TokenCache


class Tokeniser:
    """A tokeniser with a token for each byte. It records the texts that it gets."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, text: str) -> array[int]:
        self.asked.append(text)
        return array("i", list(text.encode()))


def test_text_is_tokenised_once() -> None:
    """A text that was tokenised before is taken from the cache."""
    tokenise = Tokeniser()
    cache = TokenCache(tokenise)
    assert (
        cache.tokens("ann", "hello") == cache.tokens("ann", "hello") == array("i", list(b"hello"))
    )
    assert tokenise.asked == ["hello"]


def test_text_of_one_owner_is_not_looked_up_for_another() -> None:
    """A text that one owner has cached is tokenised again for another owner."""
    tokenise = Tokeniser()
    cache = TokenCache(tokenise)
    cache.tokens("ann", "secret")
    cache.tokens("bob", "secret")
    assert tokenise.asked == ["secret", "secret"]


def test_forgotten_owner_leaves_no_text() -> None:
    """Forgetting an owner drops that owner's texts and no others."""
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
    """The least recently used text is dropped first, and one longer than the cache is not kept."""
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
    """The tokens are always right, and the cache never exceeds its bound."""
    cache = TokenCache(Tokeniser(), max_chars)
    for owner, text in asked:
        assert cache.tokens(owner, text).tolist() == list(text.encode())
        assert cache.num_chars <= max_chars
