"""Convert text to tokens and back with llama.cpp's tokeniser."""

from __future__ import annotations

import ctypes
import re
from array import array
from functools import cached_property
from typing import Any

from llmd.engine.protocol import Part
from llmd.errors import InvalidField
from llmd.worker.llama.native import ShortCalls
from llmd.worker.llama.token_cache import TokenCache

_MARKER = re.compile(r"<[^<>\s]{1,64}>|\[[^\[\]\s]{1,64}\]")
"""Pattern of user-defined tokens that count as special, such as ``<tool_call>``."""

MAX_RUN_CHARS = 4096
"""A longer run of characters without a break is split before it is tokenised."""

_LONG_RUN = re.compile(rf"\S{{{MAX_RUN_CHARS}}}|\s{{{MAX_RUN_CHARS}}}")


class Vocabulary:
    """The tokens of one model."""

    def __init__(self, lib: Any, short: ShortCalls, model: Any) -> None:
        self._lib = lib
        self._short = short
        self._vocab = lib.llama_model_get_vocab(model)
        self.num_tokens = int(lib.llama_vocab_n_tokens(self._vocab))
        self._cache = TokenCache(self._tokenize)
        self._pieces: dict[int, bytes] = {}
        self._spellings: dict[int, bytes] = {}
        self._ends: dict[int, bool] = {}
        self._buffer = ctypes.create_string_buffer(1024)
        bos, eos = lib.llama_vocab_bos(self._vocab), lib.llama_vocab_eos(self._vocab)
        self._adds_bos = bool(lib.llama_vocab_get_add_bos(self._vocab))
        self.bos = int(bos)
        self.bos_text = self._spelling(self.bos)
        self.eos_text = self._spelling(int(eos))
        self._attributes = [
            int(lib.llama_vocab_get_attr(self._vocab, token)) for token in range(self.num_tokens)
        ]
        control = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN
        self._special = self._spelled(control)
        self._special_pattern = re.compile(f"({trie_pattern(list(self._special))})")
        # llama.cpp recognises these in text even when special tokens are not requested.
        markers = self._spelled(lib.LLAMA_TOKEN_ATTR_USER_DEFINED)
        self._marker_ids = markers
        self._markers = {text for text in markers if _MARKER.fullmatch(text)}
        self.special = sorted({*self._special, *self._markers}, key=lambda text: (-len(text), text))

    def tokenize(
        self, parts: list[Part], *, begin: bool = True, owner: str | None = None
    ) -> list[int]:
        """Return the tokens of the joined text. Only literal parts can contain special tokens.

        Between special tokens the text is tokenised as a whole, across parts, because models are
        trained that way. With `begin`, the model's BOS token comes first if the model has one. With
        an owner, the tokens of texts are cached until `forget`, and only the decoding thread may
        call this. Without an owner, it is thread-safe.
        """
        tokens: list[int] = []
        for piece in self._cut(parts):
            if isinstance(piece, int):
                tokens.append(piece)
            else:
                tokens += (
                    self._tokenize(piece) if owner is None else self._cache.tokens(owner, piece)
                )
        if begin and self._adds_bos and tokens[:1] != [self.bos]:
            tokens.insert(0, self.bos)
        return tokens

    def forget(self, owner: str) -> None:
        """Drop the cached tokens of an owner's texts. Only the decoding thread may call this."""
        self._cache.forget(owner)

    def tokenize_whole(self, text: str) -> list[int]:
        """Return the tokens of a text to embed, with the special tokens that the model expects.

        Models such as BERT expect one at the end too. This is thread-safe.
        """
        lib, vocab = self._lib, self._vocab
        tokens = self.tokenize([Part(text=text)], begin=False)
        if lib.llama_vocab_type(vocab) == lib.LLAMA_VOCAB_TYPE_WPM:
            around = self.bos, lib.llama_vocab_sep(vocab)
        else:
            around = (
                self.bos if self._adds_bos else -1,
                lib.llama_vocab_eos(vocab) if lib.llama_vocab_get_add_eos(vocab) else -1,
            )
        return [token for token in (around[0], *tokens, around[1]) if token >= 0]

    def _cut(self, parts: list[Part]) -> list[int | str]:
        """Split the text into ids of special tokens and texts between them.

        A text that is not literal is also split inside each marker that it contains, so that the
        marker does not become a special token.
        """
        pieces: list[int | str] = [""]
        for part in parts:
            if part.literal:
                for index, text in enumerate(self._special_pattern.split(part.text)):
                    if index % 2:
                        self._add_special(pieces, self._special[text])
                    else:
                        self._add_text(pieces, text)
            else:
                at = 0
                for match in _MARKER.finditer(part.text):
                    if match[0] in self._markers:
                        self._add_text(pieces, part.text[at : match.start() + 1])
                        pieces.append("")
                        at = match.start() + 1
                self._add_text(pieces, part.text[at:])
        return [
            fragment
            for piece in pieces
            for fragment in ([piece] if isinstance(piece, int) else _fragments(piece))
        ]

    def _add_text(self, pieces: list[int | str], text: str) -> None:
        """Append text to the last piece, or as a new piece behind a special token."""
        last = pieces[-1]
        if isinstance(last, int):
            # Some special tokens absorb the white space behind them.
            strips = self._attributes[last] & self._lib.LLAMA_TOKEN_ATTR_RSTRIP
            pieces.append(text.lstrip() if strips else text)
        else:
            pieces[-1] = last + text

    def _add_special(self, pieces: list[int | str], token: int) -> None:
        last = pieces[-1]
        if isinstance(last, str) and self._attributes[token] & self._lib.LLAMA_TOKEN_ATTR_LSTRIP:
            pieces[-1] = last.rstrip()
        pieces.append(token)

    def _tokenize(self, text: str) -> array[int]:
        raw = text.encode("utf-8")
        num_max = len(raw) + 8
        tokens = (ctypes.c_int32 * num_max)()
        count = self._lib.llama_tokenize(self._vocab, raw, len(raw), tokens, num_max, False, False)
        if count < 0:
            raise InvalidField("the text cannot be tokenised", param="prompt")
        return array("i", tokens[:count])

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token, or none for a special token."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._read_piece(token, special=False)
        return piece

    def spelling(self, token: int) -> bytes:
        """Return the bytes of a token, including a special one."""
        piece = self._spellings.get(token)
        if piece is None:
            piece = self._spellings[token] = self._read_piece(token, special=True)
        return piece

    def all_spellings(self) -> list[bytes]:
        """Return the bytes of each token by its id, including special ones. This is thread-safe."""
        buffer = ctypes.create_string_buffer(1024)
        return [
            self._read_piece(token, special=True, buffer=buffer) for token in range(self.num_tokens)
        ]

    def _read_piece(self, token: int, *, special: bool, buffer: Any = None) -> bytes:
        buffer = self._buffer if buffer is None else buffer
        size = len(buffer)
        count = self._lib.llama_token_to_piece(self._vocab, token, buffer, size, 0, special)
        return bytes(buffer.raw[: max(count, 0)])

    def _spelling(self, token: int) -> str:
        """Return the text of a token, including a special one, or "" for a negative id."""
        if token < 0:
            return ""
        return self._read_piece(token, special=True).decode("utf-8", "replace")

    @property
    def special_ids(self) -> dict[str, int]:
        """The ids of special tokens by spelling. Text that is not literal never contains them."""
        return self._special | {text: self._marker_ids[text] for text in self._markers}

    @cached_property
    def end_tokens(self) -> list[int]:
        """All tokens that end an answer."""
        return [token for token in range(self.num_tokens) if self.is_end(token)]

    def _spelled(self, attributes: int) -> dict[str, int]:
        """Return the ids of tokens that have one of the attributes, by spelling."""
        spelled = {
            self._spelling(token): token
            for token, has in enumerate(self._attributes)
            if has & attributes
        }
        spelled.pop("", None)
        return spelled

    def is_end(self, token: int) -> bool:
        """Return whether a token ends an answer."""
        known = self._ends.get(token)
        if known is None:
            known = self._ends[token] = bool(self._short.vocab_is_eog(self._vocab, token))
        return known


def _fragments(text: str) -> list[str]:
    """Split long runs without a break.

    For some models llama.cpp's patterns recurse once for each character, and could overflow the
    stack.
    """
    if len(text) <= MAX_RUN_CHARS:
        return [text] if text else []
    fragments: list[str] = []
    at = 0
    for match in _LONG_RUN.finditer(text):
        fragments.append(text[at : match.end()])
        at = match.end()
    return [fragment for fragment in [*fragments, text[at:]] if fragment]


def trie_pattern(words: list[str]) -> str:
    """Return a pattern that matches the longest of the words at a position.

    Shared prefixes are written once, because an alternation of thousands of words takes seconds.
    """
    if not any(words):
        return "" if words else "(?!)"
    by_first: dict[str, list[str]] = {}
    for word in sorted(filter(None, words)):
        by_first.setdefault(word[0], []).append(word[1:])
    branches = [re.escape(first) + trie_pattern(rest) for first, rest in by_first.items()]
    return f"(?:{'|'.join(branches)}){'?' if '' in words else ''}"
