"""How long the steps of a grammar may take in the decoding thread."""

from __future__ import annotations

import pytest

from llmd.engine.protocol import Grammar
from llmd.errors import InvalidField
from llmd.worker.grammar import matcher
from tests.support.grammar_walk import constrained_by

LETTERS = Grammar("root ::= [a-z]+")


def test_a_grammar_that_is_always_slow_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grammar that is slow at every step is given up, and the error says what to change."""
    monkeypatch.setattr(matcher, "SLOW_S", 0.0)
    answer = constrained_by(LETTERS)
    with pytest.raises(InvalidField, match="unambiguous"):
        answer.add("a" * matcher.MAX_SLOW)


def test_a_slow_step_now_and_then_is_forgiven(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few slow steps do not end an answer, if enough others are quick."""
    answer = constrained_by(LETTERS)
    for _ in range(3):
        monkeypatch.setattr(matcher, "SLOW_S", 0.0)
        assert answer.add("a" * (matcher.MAX_SLOW // 2 - 1))
        monkeypatch.setattr(matcher, "SLOW_S", 60.0)
        assert answer.add("a" * matcher.MAX_SLOW)
