"""Text to tokens and back, by llama.cpp's tokeniser."""

from __future__ import annotations

import ctypes
import re
from typing import Any

from llmd.engine.protocol import Part
from llmd.errors import InvalidField
from llmd.worker.native import ShortCalls


class Vocabulary:
    """The tokens of one model."""

    def __init__(self, lib: Any, short: ShortCalls, model: Any) -> None:
        self._lib = lib
        self._short = short
        self._vocab = lib.llama_model_get_vocab(model)
        self.num_tokens = int(lib.llama_vocab_n_tokens(self._vocab))
        self._pieces: dict[int, bytes] = {}
        self._buffer = ctypes.create_string_buffer(1024)
        bos, eos = lib.llama_vocab_bos(self._vocab), lib.llama_vocab_eos(self._vocab)
        self._adds_bos = bool(lib.llama_vocab_get_add_bos(self._vocab))
        self.bos = int(bos)
        self.bos_text = self._spelling(self.bos)
        self.eos_text = self._spelling(int(eos))
        self.special = self._special_spellings()
        self._special_pattern = re.compile("|".join(map(re.escape, self.special)) or r"(?!)")

    def tokenize(self, parts: list[Part]) -> list[int]:
        """Return the tokens of the joined text; only literal parts can give special tokens.

        The text is tokenised as a whole, as the model was trained to read it, unless inserted
        text spells a special token: then each run of parts of a kind is tokenised for itself.
        """
        text = "".join(part.text for part in parts)
        if self._is_safe(parts, text):
            tokens = self._tokenize(text, parse_special=True)
        else:
            tokens = [
                token
                for run, literal in _runs(parts)
                for token in self._tokenize(run, parse_special=literal)
            ]
        if self._adds_bos and tokens[:1] != [self.bos]:
            tokens.insert(0, self.bos)
        return tokens

    def _is_safe(self, parts: list[Part], text: str) -> bool:
        """Tell whether every special token's spelling lies within one literal part."""
        if all(part.literal for part in parts):
            return True
        bounds: list[tuple[int, int]] = []
        at = 0
        for part in parts:
            if part.literal:
                bounds.append((at, at + len(part.text)))
            at += len(part.text)
        return all(
            any(begin <= match.start() and match.end() <= end for begin, end in bounds)
            for match in self._special_pattern.finditer(text)
        )

    def _tokenize(self, text: str, *, parse_special: bool) -> list[int]:
        raw = text.encode("utf-8")
        num_max = len(raw) + 8
        tokens = (ctypes.c_int32 * num_max)()
        count = self._lib.llama_tokenize(
            self._vocab, raw, len(raw), tokens, num_max, False, parse_special
        )
        if count < 0:
            raise InvalidField("the text cannot be tokenised", param="prompt")
        return tokens[:count]

    def piece(self, token: int) -> bytes:
        """Return the bytes that a token stands for; none for a special token."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._read_piece(token, special=False)
        return piece

    def _read_piece(self, token: int, *, special: bool) -> bytes:
        size = len(self._buffer)
        count = self._lib.llama_token_to_piece(self._vocab, token, self._buffer, size, 0, special)
        return self._buffer.raw[: max(count, 0)]

    def _spelling(self, token: int) -> str:
        """Return how a token is written, a special one too; nothing for one that is not there."""
        if token < 0:
            return ""
        return self._read_piece(token, special=True).decode("utf-8", "replace")

    def _special_spellings(self) -> list[str]:
        """Return how the tokens are spelled that inserted text must not give, longest first."""
        lib = self._lib
        wanted = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN
        spellings = {
            self._spelling(token)
            for token in range(self.num_tokens)
            if lib.llama_vocab_get_attr(self._vocab, token) & wanted
        }
        return sorted(spellings - {""}, key=lambda spelling: (-len(spelling), spelling))

    def is_end(self, token: int) -> bool:
        """Tell whether the model ends its answer with this token."""
        return bool(self._short.vocab_is_eog(self._vocab, token))


def _runs(parts: list[Part]) -> list[tuple[str, bool]]:
    """Join neighbours of a kind: (text, literal) of each run."""
    runs: list[tuple[str, bool]] = []
    for part in parts:
        if runs and runs[-1][1] == part.literal:
            runs[-1] = (runs[-1][0] + part.text, part.literal)
        else:
            runs.append((part.text, part.literal))
    return runs
