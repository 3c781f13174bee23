"""How long a grammar may take, in the thread that decodes for everybody."""

from __future__ import annotations

import pytest

from llmd.engine.protocol import Grammar
from llmd.errors import InvalidField
from llmd.worker.grammar import matcher
from tests.support.grammar_walk import constrained_by

LETTERS = Grammar("root ::= [a-z]+")


def test_a_grammar_that_holds_up_the_others_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is slow at every step; the error tells what would be right."""
    monkeypatch.setattr(matcher, "SLOW_S", 0.0)
    answer = constrained_by(LETTERS)
    with pytest.raises(InvalidField, match="unambiguous"):
        answer.add("a" * matcher.MAX_SLOW)


def test_a_slow_step_now_and_then_is_forgiven(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine may have been busy with something else."""
    answer = constrained_by(LETTERS)
    for _ in range(3):
        monkeypatch.setattr(matcher, "SLOW_S", 0.0)
        assert answer.add("a" * (matcher.MAX_SLOW // 2 - 1))
        monkeypatch.setattr(matcher, "SLOW_S", 60.0)
        assert answer.add("a" * matcher.MAX_SLOW)
