"""A small byte-level BPE vocabulary and a chat template, for models that tests make."""

from __future__ import annotations

import functools
import re
from collections import Counter
from typing import NamedTuple

PAD, END, TURN_START, TURN_END, CLASS, SEPARATOR = SPECIAL_TOKENS = (
    "<|pad|>",
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "[CLS]",
    "[SEP]",
)

TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""A chat template whose special tokens the vocabulary has."""

NUM_TOKENS = 512

_NORMAL, _CONTROL = 1, 3
"""Types of tokens, as `llama_token_type` numbers them."""

_SAMPLE = """
the system and the user and the assistant speak about a lighthouse keeper who writes in his book
every night while the sea is calm and the stars are bright or the wind is strong and the waves are
high then he tells a story of an old ship that came from the north with a cargo of salt and iron
and of the people in the town who waited at the harbour for it because there was nothing else to do
please say hello and tell me something that is short and true about this model and how it answers
what where when why which would could should there their they them have had has been being other
because before between during without within against among through across above below
question question answer answer first second third number name word words write read remember
"""
"""The text from which the merges are learned."""


class Vocabulary(NamedTuple):
    """What a GGUF file says about a tokenizer of the kind "gpt2"."""

    tokens: list[str]
    types: list[int]
    merges: list[str]

    def number(self, token: str) -> int:
        """Return the number of a token."""
        return self.tokens.index(token)

    def rare(self) -> list[int]:
        """Return the tokens that a made model should not choose.

        They are all special tokens, and the bytes that are not printable ASCII, so that answers
        are valid UTF-8 and end only at a limit.
        """
        letters = _letters()
        printable = {letters[byte] for byte in range(0x20, 0x7F)}
        return [
            number
            for number, (token, kind) in enumerate(zip(self.tokens, self.types, strict=True))
            if kind != _NORMAL or not set(token) <= printable
        ]


@functools.cache
def vocabulary() -> Vocabulary:
    """Return `NUM_TOKENS` tokens: all bytes, the special tokens, and merges of English letters."""
    letters = list(_letters().values())
    merges = _learn_merges(NUM_TOKENS - len(letters) - len(SPECIAL_TOKENS))
    merged = [left + right for left, right in merges]
    tokens = [*SPECIAL_TOKENS, *letters, *merged]
    types = [_CONTROL if token in SPECIAL_TOKENS else _NORMAL for token in tokens]
    return Vocabulary(tokens, types, [f"{left} {right}" for left, right in merges])


def _letters() -> dict[int, str]:
    """Return the letter that stands for each byte, as in GPT-2's vocabulary.

    Bytes that are visible characters of Latin-1 stand for themselves; the others are numbered
    from U+0100 on.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in visible]
    letters = {byte: chr(byte) for byte in visible}
    letters |= {byte: chr(0x100 + number) for number, byte in enumerate(others)}
    return dict(sorted(letters.items()))


def _learn_merges(count: int) -> list[tuple[str, str]]:
    """Return the pairs to merge, the most frequent first; of equal ones the alphabetical first."""
    space = _letters()[0x20]
    words = Counter(re.findall(r" ?[a-z]+", _SAMPLE.replace("\n", " ")))
    parts = {word: list(word.replace(" ", space)) for word in words}
    merges: list[tuple[str, str]] = []
    made: set[str] = set()
    while len(merges) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, times in words.items():
            for pair in zip(parts[word], parts[word][1:], strict=False):
                if "".join(pair) not in made:
                    pairs[pair] += times
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        made.add("".join(best))
        parts = {word: _merged(pieces, best) for word, pieces in parts.items()}
    return merges


def _merged(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    """Return the pieces of a word with each occurrence of `pair` joined."""
    joined: list[str] = []
    for piece in pieces:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined
