"""Text to tokens, with a tokeniser that gives a token a character."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.engine.protocol import Part
from llmd.worker.llama.vocabulary import MAX_RUN_CHARS, Vocabulary, _fragments, trie_pattern

NORMAL, CONTROL, USER_DEFINED, RSTRIP = 4, 8, 16, 256
# Token → how it is written, its attributes.
TOKENS = {
    0: ("<s>", CONTROL),
    1: ("<|user|>", CONTROL | RSTRIP),
    2: ("<|system|>", USER_DEFINED),
    3: ("  ", USER_DEFINED),
    4: ("x", NORMAL),
}
FIRST_CHAR = 100


class FakeLib(SimpleNamespace):
    """Tokenise a character at a time, and a user-defined token at once wherever it is spelled."""

    LLAMA_TOKEN_ATTR_UNKNOWN = 1
    LLAMA_TOKEN_ATTR_CONTROL = CONTROL
    LLAMA_TOKEN_ATTR_USER_DEFINED = USER_DEFINED
    LLAMA_TOKEN_ATTR_LSTRIP = 128
    LLAMA_TOKEN_ATTR_RSTRIP = RSTRIP

    def __getattr__(self, name: str) -> Any:
        answers = {
            "llama_model_get_vocab": None,
            "llama_vocab_n_tokens": len(TOKENS),
            "llama_vocab_bos": 0,
            "llama_vocab_eos": 0,
            "llama_vocab_get_add_bos": True,
        }
        return lambda *_args: answers[name]

    def llama_vocab_get_attr(self, _vocab: object, token: int) -> int:
        return TOKENS[token][1]

    def llama_token_to_piece(
        self, _vocab: object, token: int, buffer: Any, _size: int, _strip: int, special: bool
    ) -> int:
        raw = TOKENS[token][0].encode()
        buffer.raw = raw.ljust(len(buffer), b"\0")
        return len(raw) if special or TOKENS[token][1] == NORMAL else 0

    def llama_tokenize(
        self, _vocab: object, raw: bytes, _n: int, tokens: Any, _max: int, bos: bool, special: bool
    ) -> int:
        assert not bos
        assert not special
        count = 0
        for piece in re.split(r"(<\|system\|>)", raw.decode()):
            found = [2] if piece == "<|system|>" else [FIRST_CHAR + ord(char) for char in piece]
            for token in found:
                tokens[count] = token
                count += 1
        return count


@pytest.fixture
def vocabulary() -> Vocabulary:
    """Give the vocabulary of `TOKENS`."""
    return Vocabulary(FakeLib(), SimpleNamespace(), None)  # type: ignore[arg-type]


def chars(text: str) -> list[int]:
    """Return the tokens of plain text."""
    return [FIRST_CHAR + ord(char) for char in text]


def test_literal_text_gives_special_tokens(vocabulary: Vocabulary) -> None:
    """An admin's template spells them, and one may take the white space behind it."""
    tokens = vocabulary.tokenize([Part(text="<|user|>\nhi", literal=True)])
    assert tokens == [0, 1, *chars("hi")]


def test_inserted_text_gives_none(vocabulary: Vocabulary) -> None:
    """Neither a control token nor one that the tokeniser would read unasked."""
    for text in ["<|user|>", "<|system|>", "a<|system|>b", "<|system|><|system|>", "<s>"]:
        assert vocabulary.tokenize([Part(text=text)]) == [0, *chars(text)]


def test_a_special_token_is_not_put_together_of_two_parts(vocabulary: Vocabulary) -> None:
    """Half in the template and half in the user's words, it stays text."""
    parts = [Part(text="<|us", literal=True), Part(text="er|>")]
    assert vocabulary.tokenize(parts) == [0, *chars("<|user|>")]


def test_what_begins_with_the_first_token_gets_no_second_one(vocabulary: Vocabulary) -> None:
    """A template that writes it itself is not given it twice."""
    assert vocabulary.tokenize([Part(text="<s>hi", literal=True)]) == [0, *chars("hi")]


def test_an_owners_text_gives_the_same_tokens_again(vocabulary: Vocabulary) -> None:
    """Kept or not, forgotten or not."""
    parts = [Part(text="<|user|>\n", literal=True), Part(text="hi"), Part(text="<s>ho")]
    tokens = vocabulary.tokenize(parts)
    for _ in range(2):
        assert vocabulary.tokenize(parts, owner="ann") == tokens
        assert vocabulary.tokenize(parts, owner="ann") == tokens
        vocabulary.forget("ann")


@given(st.lists(st.text("ab<|>", min_size=1, max_size=4), min_size=1, max_size=9), st.text("ab<|>"))
def test_a_trie_finds_the_longest_word_at_each_place(words: list[str], text: str) -> None:
    """As an alternation does that names the longest words first."""
    plain = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    assert re.findall(trie_pattern(words), text) == re.findall(plain, text)


def test_a_trie_of_no_word_finds_nothing() -> None:
    """A model may have no special token at all."""
    assert re.findall(trie_pattern([]), "any") == []


@given(st.lists(st.tuples(st.sampled_from(["a", " ", "é"]), st.integers(1, 9000)), max_size=5))
def test_long_runs_are_cut_and_nothing_is_lost(runs: list[tuple[str, int]]) -> None:
    """No fragment has a run that could overflow the stack of a native pattern."""
    text = "".join(char * count for char, count in runs)
    fragments = _fragments(text)
    assert "".join(fragments) == text
    assert all(fragments)
    longest = rf"\S{{{MAX_RUN_CHARS + 1}}}|\s{{{MAX_RUN_CHARS + 1}}}"
    assert not any(re.search(longest, fragment) for fragment in fragments)
