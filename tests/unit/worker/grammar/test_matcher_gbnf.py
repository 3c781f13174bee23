"""Answers that are constrained_by to a grammar or to tools, and which of these bounds an answer."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from llmd.engine.protocol import (
    ChatPrompt,
    Constraint,
    Grammar,
    JsonSchema,
    Message,
    Part,
    Prompt,
    Sampling,
    Submit,
    TextPrompt,
    TokenPrompt,
    Tool,
    Tools,
)
from llmd.errors import InvalidField
from llmd.worker.grammar.matcher import MAX_GRAMMAR_CHARS
from llmd.worker.syntax import HERMES, QWEN3_CODER, Syntax
from tests.support.grammar_walk import (
    COMPILER,
    ByteVocabulary,
    ConstrainedAnswer,
    compiler_for,
    constrained_by,
    refusal,
)

CALL = '<tool_call>\n{"name": "f", "arguments": '
INTEGER: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}
UNSUPPORTED: dict[str, Any] = {"type": "object", "properties": {"a": {"not": {"const": 5}}}}


# Grammars

LIST = r"""
# One thing a line.
root ::= item+ | "none"
item ::= "- " word ("," ws word){0,2} "\n"
word ::= [a-z]+ | "\"" [^"\x00-\x1f]* "\""
ws   ::= " "?
"""


@pytest.mark.parametrize(
    ("before", "letters", "may_end"),
    [
        ("", "S1 ", False),
        ("none", "e\n", True),
        ("- a", "A-", False),
        ('- ab, "É,",c\n', "n ", True),
        ("- a,b, c", ",", False),
        ('- "a', "\n", False),
    ],
)
def test_a_grammar_is_kept(before: str, letters: str, may_end: bool) -> None:
    """In the language of llama.cpp."""
    answer = constrained_by(Grammar(LIST))
    assert answer.add(before)
    assert answer.may_end() is may_end
    for letter in letters:
        assert answer.is_complete() or ord(letter) not in answer.allowed()


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        (r'root ::= "\x41\u0042"', "AB"),
        (r'root ::= "\u00e9"', "é"),
        (r"root ::= [\u00e0-\u00ff]+ [\x30-\x39]", "àé7"),
        (r'root ::= "\U0001F600"', "😀"),
        (r'root ::= "\t\"\\" [\]\n/^-]{5}', '\t"\\]\n/^-'),
    ],
)
def test_a_letter_may_be_written_by_its_number_or_its_sign(text: str, letters: str) -> None:
    """As llama.cpp reads it, within quotes and brackets."""
    answer = constrained_by(Grammar(text))
    assert answer.add(letters)
    assert answer.may_end()


def test_an_answer_is_complete_where_its_grammar_ends() -> None:
    """Where more may follow, it may end."""
    answer = constrained_by(Grammar('root ::= "yes" | "no" [0-9]*'))
    assert answer.add("yes")
    assert answer.is_complete()
    answer = constrained_by(Grammar('root ::= "yes" | "no" [0-9]*'))
    assert answer.add("no")
    assert answer.may_end()
    assert not answer.is_complete()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n",
        "# nothing but a comment",
        "root",
        'root = "a"',
        "root ::= (",
        'root ::= "a',
        "root ::= [a-",
        "root ::= [z-a]",
        r'root ::= "\q"',
        r'root ::= "\x4"',
        "root ::= a{2",
        'root ::= "a"{2,1}',
        "root ::= item",
        'item ::= "a"',
        'root ::= "a" item\nother ::= "b"',
        # What the library would call by the same name.
        'root ::= START start\nSTART ::= "a"\nstart ::= "b"',
        "(" * 5000,
    ],
)
def test_what_is_no_grammar_is_refused(text: str) -> None:
    """It is the client's mistake, whatever the library makes of it."""
    assert refusal(lambda: constrained_by(Grammar(text))).param == "grammar"


def test_a_grammar_that_leads_nowhere_is_refused() -> None:
    """At the latest when a token is to be chosen."""

    def follow() -> None:
        constrained_by(Grammar('root ::= "a" root')).add("aaa")
        constrained_by(Grammar('root ::= root "a"')).add("a")

    assert refusal(follow).param == "grammar"


def test_a_grammar_of_letters_that_the_model_has_not_is_refused() -> None:
    """There is no token to choose from."""

    class Poor(ByteVocabulary):
        def all_spellings(self) -> list[bytes]:
            return [b"" if raw in {b"x", b"z"} else raw for raw in super().all_spellings()]

    answer = ConstrainedAnswer(
        compiler_for(Poor()).compile_constraint(Grammar('root ::= "a" [xz]'))
    )
    assert answer.add("a")
    assert refusal(answer.matcher.mask).param == "grammar"


def test_a_grammar_has_no_more_characters_than_that() -> None:
    """Comments count."""
    comment = "\n#" + "x" * (MAX_GRAMMAR_CHARS - 14)
    constrained_by(Grammar('root ::= "a"' + comment))
    error = refusal(lambda: constrained_by(Grammar('root ::= "a"' + comment + "x")))
    assert (error.param, f"{MAX_GRAMMAR_CHARS}" in error.message) == ("grammar", True)


def test_a_grammar_that_is_too_large_when_it_is_written_out_is_refused() -> None:
    """A few letters may stand for many: it would take long to compile."""
    choices = [f'[a-z]{{1,{n}}} "{n:x}" [a-z]{{3,{n}}}' for n in range(5, 1500)]
    error = refusal(lambda: constrained_by(Grammar("root ::= " + " | ".join(choices))))
    assert error.param == "grammar"
    assert "too big" in error.message


# Tools


def _tools(*schemas: dict[str, Any], required: bool = True) -> Tools:
    tools = [Tool(name="f", parameters=json.dumps(schema)) for schema in schemas]
    return Tools(tools=tools, required=required)


def _answer_to(
    prompt: Prompt | Tools,
    *,
    constraint: Constraint | None = None,
    syntax: Syntax = HERMES,
    is_thinking: bool = False,
) -> ConstrainedAnswer | None:
    """Return the answer to a prompt, or to one with tools; None for one that nothing bounds."""
    if isinstance(prompt, Tools):
        prompt = ChatPrompt([Message(role="user", content="hi")], prompt)
    request = Submit(
        id=1,
        owner="ann",
        prompt=prompt,
        sampling=Sampling(),
        max_tokens=9,
        constraint=constraint,
    )
    matcher = COMPILER.compile_request(request, syntax, is_thinking=is_thinking)
    return None if matcher is None else ConstrainedAnswer(matcher)


def _allows(text: str, tools: Tools, syntax: Syntax = HERMES) -> bool:
    answer = _answer_to(tools, syntax=syntax)
    assert answer is not None
    return answer.add(text)


def test_a_call_that_must_be_is_valid_by_the_tools_schema() -> None:
    """There is no way around it."""
    tools = _tools(INTEGER)
    assert _allows(CALL + '{"a": 5}}\n</tool_call>', tools)
    assert not _allows("No", tools)
    assert not _allows(CALL + '{"a": "', tools)
    assert not _allows(CALL + "{}", tools)


def test_a_call_that_may_be_is_valid_too() -> None:
    """Text is free before it."""
    tools = _tools(INTEGER, required=False)
    assert _allows("Let me see.\n" + CALL + '{"a": 5}}\n</tool_call>', tools)
    assert not _allows(CALL + "{}", tools)


@pytest.mark.parametrize("syntax", [HERMES, QWEN3_CODER])
def test_schemas_that_cannot_be_kept_are_refused_where_a_call_must_be(syntax: Syntax) -> None:
    """The client relies on them."""
    error = refusal(lambda: _answer_to(_tools(UNSUPPORTED), syntax=syntax))
    assert error.param == "tools"
    assert "not" in error.message


def test_schemas_that_cannot_be_kept_leave_a_free_call_any_object() -> None:
    """Of the right form, and by the right name."""
    tools = _tools(UNSUPPORTED, required=False)
    assert _allows("Well.\n" + CALL + '{"a": 5, "b": [null]}}\n</tool_call>', tools)
    assert not _allows(CALL + "5", tools)
    assert not _allows('<tool_call>\n{"name": "g', tools)


@pytest.mark.parametrize("required", [True, False])
def test_tools_have_no_more_characters_than_that(*, required: bool) -> None:
    """All of them together, whether one must be called or not."""
    half = {"title": "x" * (MAX_GRAMMAR_CHARS // 2 - len('{"title": ""}'))}
    assert _answer_to(_tools(half, half, required=required))
    more = {"title": half["title"] + "x"}
    error = refusal(lambda: _answer_to(_tools(half, more, required=required)))
    assert (error.param, f"{MAX_GRAMMAR_CHARS}" in error.message) == ("tools", True)


def test_parameters_that_are_no_object_are_refused() -> None:
    """Where a call must be."""
    tools = Tools(tools=[Tool(name="f", parameters="[]")], required=True)
    assert refusal(lambda: _answer_to(tools)).param == "tools"


# Which of them it is


@pytest.mark.parametrize(
    "prompt",
    [
        TextPrompt([Part(text="hi")]),
        TokenPrompt([1]),
        ChatPrompt([Message(role="user", content="hi")]),
    ],
)
def test_an_answer_is_free_where_nothing_bounds_it(prompt: Prompt) -> None:
    """A constraint bounds any of them."""
    assert _answer_to(prompt) is None
    answer = _answer_to(prompt, constraint=Grammar('root ::= "yes"'))
    assert answer is not None
    assert answer.allowed() == {ord("y")}


def test_a_constraint_counts_before_tools() -> None:
    """The answer is of its form, and calls nothing."""
    answer = _answer_to(_tools(INTEGER), constraint=JsonSchema('{"const": 5}'))
    assert answer is not None
    assert answer.add("5")
    assert answer.may_end()


def test_a_thought_that_was_begun_comes_to_its_end_before_a_call() -> None:
    """The prompt has opened it."""
    syntax = replace(HERMES, thought_start_marker="<think>", thought_end_marker="</think>")
    answer = _answer_to(_tools(INTEGER), syntax=syntax, is_thinking=True)
    assert answer is not None
    assert answer.add("Hm.</think>\n\n" + CALL)


def test_each_answer_has_a_matcher_of_its_own() -> None:
    """Where one is says nothing of another."""
    first, second = (constrained_by(Grammar('root ::= "yes"')) for _ in range(2))
    assert first.add("ye")
    assert second.allowed() == {ord("y")}
    with pytest.raises(InvalidField):
        second.matcher.accept(ord("s"))
    assert first.add("s")
