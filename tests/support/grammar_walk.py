"""Check answers under a grammar, token by token, with a vocabulary of single bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from llmd.engine.protocol import Constraint, JsonSchema, Part
from llmd.errors import InvalidField
from llmd.worker.grammar.matcher import GrammarCompiler, GrammarMatcher

END, OTHER_END, SPECIAL = 256, 257, 258
"""The tokens that are not bytes. Two of them end an answer."""


class ByteVocabulary:
    """A vocabulary with a token for each byte, and three special tokens."""

    num_tokens = 259
    bos = -1

    def __init__(self, *, ends_are_special: bool = True) -> None:
        self.end_tokens = [END, OTHER_END]
        self.special_ids = {"<special>": SPECIAL}
        if ends_are_special:
            self.special_ids |= {"<end>": END, "<stop>": OTHER_END}

    def all_spellings(self) -> list[bytes]:
        return [bytes([byte]) for byte in range(256)] + [b"<end>", b"<stop>", b"<special>"]

    def tokenize(self, parts: list[Part], *, begin: bool = True) -> list[int]:
        return list("".join(part.text for part in parts).encode())


def compiler_for(vocabulary: ByteVocabulary) -> GrammarCompiler:
    """Return a compiler of grammars for a vocabulary."""
    taken: Any = vocabulary
    return GrammarCompiler(taken)


COMPILER = compiler_for(ByteVocabulary())


class ConstrainedAnswer:
    """An answer under a grammar, as far as it has been written."""

    def __init__(self, matcher: GrammarMatcher | None) -> None:
        assert matcher is not None
        self.matcher = matcher

    def add(self, text: str) -> bool:
        """Append a text; return whether all of it was allowed."""
        for token in text.encode():
            if self.matcher.is_complete or not self.matcher.mask()[token]:
                return False
            self.matcher.accept(token)
        return True

    def is_complete(self) -> bool:
        """Return whether the answer is complete, so that no further token is allowed."""
        return self.matcher.is_complete

    def may_end(self) -> bool:
        """Return whether the answer may end here."""
        return self.is_complete() or bool(self.matcher.mask()[END])

    def allowed(self) -> set[int]:
        """Return the tokens that may come next."""
        return {token for token, may in enumerate(self.matcher.mask()) if may}


def constrained_by(by: Constraint | dict[str, Any]) -> ConstrainedAnswer:
    """Return an empty answer under a schema or grammar."""
    given = JsonSchema(json.dumps(by)) if isinstance(by, dict) else by
    return ConstrainedAnswer(COMPILER.compile_constraint(given))


def refusal(call: Callable[[], object]) -> InvalidField:
    """Return the error of a call that must be refused, with a message of one line."""
    with pytest.raises(InvalidField) as caught:
        call()
    assert caught.value.message.strip()
    assert "\n" not in caught.value.message
    return caught.value
