"""The vocabulary, with a fake tokeniser that makes a token of each character."""

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
# Token → its spelling and its attributes.
TOKENS = {
    0: ("<s>", CONTROL),
    1: ("<|user|>", CONTROL | RSTRIP),
    2: ("<|system|>", USER_DEFINED),
    3: ("  ", USER_DEFINED),
    4: ("x", NORMAL),
}
FIRST_CHAR = 100


class FakeLib(SimpleNamespace):
    """A fake llama.cpp that makes a token of each character and of each user-defined token."""

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
    """Return the vocabulary of `TOKENS`."""
    return Vocabulary(FakeLib(), SimpleNamespace(), None)  # type: ignore[arg-type]


def chars(text: str) -> list[int]:
    """Return the tokens of plain text."""
    return [FIRST_CHAR + ord(char) for char in text]


def test_literal_text_contains_special_tokens(vocabulary: Vocabulary) -> None:
    """Literal text contains special tokens, which may absorb the white space behind them."""
    tokens = vocabulary.tokenize([Part(text="<|user|>\nhi", literal=True)])
    assert tokens == [0, 1, *chars("hi")]


def test_inserted_text_contains_no_special_tokens(vocabulary: Vocabulary) -> None:
    """Inserted text contains neither control tokens nor user-defined ones."""
    for text in ["<|user|>", "<|system|>", "a<|system|>b", "<|system|><|system|>", "<s>"]:
        assert vocabulary.tokenize([Part(text=text)]) == [0, *chars(text)]


def test_a_special_token_is_not_put_together_of_two_parts(vocabulary: Vocabulary) -> None:
    """A special token spelled half in literal and half in inserted text stays text."""
    parts = [Part(text="<|us", literal=True), Part(text="er|>")]
    assert vocabulary.tokenize(parts) == [0, *chars("<|user|>")]


def test_text_that_begins_with_the_first_token_gets_no_second_one(vocabulary: Vocabulary) -> None:
    """The first token is not added to a text that begins with it."""
    assert vocabulary.tokenize([Part(text="<s>hi", literal=True)]) == [0, *chars("hi")]


def test_an_owners_text_gives_the_same_tokens_again(vocabulary: Vocabulary) -> None:
    """The tokens of a text are the same whether they are cached or not."""
    parts = [Part(text="<|user|>\n", literal=True), Part(text="hi"), Part(text="<s>ho")]
    tokens = vocabulary.tokenize(parts)
    for _ in range(2):
        assert vocabulary.tokenize(parts, owner="ann") == tokens
        assert vocabulary.tokenize(parts, owner="ann") == tokens
        vocabulary.forget("ann")


@given(st.lists(st.text("ab<|>", min_size=1, max_size=4), min_size=1, max_size=9), st.text("ab<|>"))
def test_a_trie_finds_the_longest_word_at_each_position(words: list[str], text: str) -> None:
    """The pattern finds the same words as an alternation with the longest first."""
    plain = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    assert re.findall(trie_pattern(words), text) == re.findall(plain, text)


def test_a_trie_of_no_word_finds_nothing() -> None:
    """The pattern of no words matches nothing."""
    assert re.findall(trie_pattern([]), "any") == []


@given(st.lists(st.tuples(st.sampled_from(["a", " ", "é"]), st.integers(1, 9000)), max_size=5))
def test_long_runs_are_cut_and_nothing_is_lost(runs: list[tuple[str, int]]) -> None:
    """Long runs are split into fragments without a run that is too long."""
    text = "".join(char * count for char, count in runs)
    fragments = _fragments(text)
    assert "".join(fragments) == text
    assert all(fragments)
    longest = rf"\S{{{MAX_RUN_CHARS + 1}}}|\s{{{MAX_RUN_CHARS + 1}}}"
    assert not any(re.search(longest, fragment) for fragment in fragments)
