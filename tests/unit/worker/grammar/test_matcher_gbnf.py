"""Answers that are constrained to a grammar or to tools, and which of them applies."""

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
from llmd.worker.syntax import HERMES, Syntax
from tests.support.grammar_walk import (
    COMPILER,
    ByteVocabulary,
    ConstrainedAnswer,
    compiler_for,
    constrained_by,
    refusal,
)
from tests.support.syntaxes import HARMONY, QWEN3_CODER

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
def test_a_grammar_is_enforced(before: str, letters: str, may_end: bool) -> None:
    """An answer under a grammar in GBNF may only continue and end as the grammar allows."""
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
def test_a_character_may_be_escaped(text: str, letters: str) -> None:
    """Escapes are read as llama.cpp reads them, in quotes and in brackets."""
    answer = constrained_by(Grammar(text))
    assert answer.add(letters)
    assert answer.may_end()


def test_an_answer_is_complete_where_its_grammar_ends() -> None:
    """An answer is complete if nothing can follow, and may end if something can."""
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
        # llguidance uses these names itself.
        'root ::= START start\nSTART ::= "a"\nstart ::= "b"',
        "(" * 5000,
    ],
)
def test_a_text_that_is_not_a_grammar_is_refused(text: str) -> None:
    """A text that is not valid GBNF is refused."""
    assert refusal(lambda: constrained_by(Grammar(text))).param == "grammar"


def test_a_grammar_that_cannot_end_is_refused() -> None:
    """A grammar that cannot end is refused, at the latest when a token is chosen."""

    def follow() -> None:
        constrained_by(Grammar('root ::= "a" root')).add("aaa")
        constrained_by(Grammar('root ::= root "a"')).add("a")

    assert refusal(follow).param == "grammar"


def test_a_grammar_of_characters_without_tokens_is_refused() -> None:
    """A grammar is refused when no token of the model fits it."""

    class Poor(ByteVocabulary):
        def all_spellings(self) -> list[bytes]:
            return [b"" if raw in {b"x", b"z"} else raw for raw in super().all_spellings()]

    answer = ConstrainedAnswer(
        compiler_for(Poor()).compile_constraint(Grammar('root ::= "a" [xz]'))
    )
    assert answer.add("a")
    assert refusal(answer.matcher.mask).param == "grammar"


def test_a_grammar_has_no_more_characters_than_the_limit() -> None:
    """A grammar may have up to the limit of characters, comments included."""
    comment = "\n#" + "x" * (MAX_GRAMMAR_CHARS - 14)
    constrained_by(Grammar('root ::= "a"' + comment))
    error = refusal(lambda: constrained_by(Grammar('root ::= "a"' + comment + "x")))
    assert (error.param, f"{MAX_GRAMMAR_CHARS}" in error.message) == ("grammar", True)


def test_a_grammar_that_is_too_large_when_compiled_is_refused() -> None:
    """A grammar within the limit of characters is refused if its compiled size is too large."""
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
    """Return an empty answer to a prompt, or None if nothing constrains it."""
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


def test_a_required_call_is_valid_by_the_tools_schema() -> None:
    """With `required`, the answer must be a call that is valid by the tool's schema."""
    tools = _tools(INTEGER)
    assert _allows(CALL + '{"a": 5}}\n</tool_call>', tools)
    assert not _allows("No", tools)
    assert not _allows(CALL + '{"a": "', tools)
    assert not _allows(CALL + "{}", tools)


def test_an_optional_call_is_valid_too() -> None:
    """Without `required`, text may precede a call, which must be valid."""
    tools = _tools(INTEGER, required=False)
    assert _allows("Let me see.\n" + CALL + '{"a": 5}}\n</tool_call>', tools)
    assert not _allows(CALL + "{}", tools)


@pytest.mark.parametrize("syntax", [HERMES, QWEN3_CODER])
def test_unsupported_schemas_are_refused_for_a_required_call(syntax: Syntax) -> None:
    """With `required`, an unsupported schema is refused."""
    error = refusal(lambda: _answer_to(_tools(UNSUPPORTED), syntax=syntax))
    assert error.param == "tools"
    assert "not" in error.message


def test_unsupported_schemas_allow_any_object_for_an_optional_call() -> None:
    """Without `required`, a tool with an unsupported schema takes any object as arguments."""
    tools = _tools(UNSUPPORTED, required=False)
    assert _allows("Well.\n" + CALL + '{"a": 5, "b": [null]}}\n</tool_call>', tools)
    assert not _allows(CALL + "5", tools)
    assert not _allows('<tool_call>\n{"name": "g', tools)


@pytest.mark.parametrize("required", [True, False])
def test_tools_have_no_more_characters_than_the_limit(*, required: bool) -> None:
    """The limit of characters applies to the schemas of all tools together."""
    half = {"title": "x" * (MAX_GRAMMAR_CHARS // 2 - len('{"title": ""}'))}
    assert _answer_to(_tools(half, half, required=required))
    more = {"title": half["title"] + "x"}
    error = refusal(lambda: _answer_to(_tools(half, more, required=required)))
    assert (error.param, f"{MAX_GRAMMAR_CHARS}" in error.message) == ("tools", True)


def test_parameters_that_are_not_an_object_are_refused() -> None:
    """With `required`, parameters that are not an object are refused."""
    tools = Tools(tools=[Tool(name="f", parameters="[]")], required=True)
    assert refusal(lambda: _answer_to(tools)).param == "tools"


# Which constraint applies


@pytest.mark.parametrize(
    "prompt",
    [
        TextPrompt([Part(text="hi")]),
        TokenPrompt([1]),
        ChatPrompt([Message(role="user", content="hi")]),
    ],
)
def test_an_answer_is_free_if_nothing_constrains_it(prompt: Prompt) -> None:
    """An answer is free unless its request has a constraint or tools."""
    assert _answer_to(prompt) is None
    answer = _answer_to(prompt, constraint=Grammar('root ::= "yes"'))
    assert answer is not None
    assert answer.allowed() == {ord("y")}


def test_a_constraint_takes_precedence_over_optional_tools() -> None:
    """With a constraint and tools that need not be called, the constraint applies."""
    tools = _tools(INTEGER, required=False)
    answer = _answer_to(tools, constraint=JsonSchema('{"const": 5}'))
    assert answer is not None
    assert answer.add("5")
    assert answer.may_end()


def test_required_tools_take_precedence_over_a_constraint() -> None:
    """With a constraint and a tool that must be called, the tool's schema applies."""
    answer = _answer_to(_tools(INTEGER), constraint=JsonSchema('{"const": 5}'))
    assert answer is not None
    assert answer.add(CALL + '{"a": 5}}\n</tool_call>')


@pytest.mark.parametrize(
    ("constraint", "text"),
    [
        (JsonSchema('{"type": "object", "properties": {"a": {"const": 1}}}'), '{"a": 1}'),
        (Grammar('root ::= "y" x\nx ::= [a-z]'), "ya"),
    ],
)
def test_open_thought_ends_before_a_constraint_applies(constraint: Constraint, text: str) -> None:
    """A constraint is for the text of an answer, not for the thought that the prompt opened."""
    syntax = replace(HERMES, thought_start="<think>", thought_end="</think>")
    prompt = ChatPrompt([Message(role="user", content="hi")])
    answer = _answer_to(prompt, constraint=constraint, syntax=syntax, is_thinking=True)
    assert answer is not None
    assert answer.add("Hm {y.\n")
    assert not answer.may_end()
    assert answer.add(f"</think>\n\n{text}")
    assert answer.may_end()
    answer = _answer_to(prompt, constraint=constraint, syntax=HARMONY)
    assert answer is not None
    assert not answer.add(text)
    answer = _answer_to(prompt, constraint=constraint, syntax=HARMONY)
    assert answer is not None
    thought = "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant"
    assert answer.add(f"{thought}<|channel|>final<|message|>{text}")
    assert answer.may_end()


def test_an_open_thought_ends_before_a_required_call() -> None:
    """A thought that the prompt has opened must end before a required call."""
    syntax = replace(HERMES, thought_start="<think>", thought_end="</think>")
    answer = _answer_to(_tools(INTEGER), syntax=syntax, is_thinking=True)
    assert answer is not None
    assert answer.add("Hm.</think>\n\n" + CALL)


def test_each_answer_has_a_matcher_of_its_own() -> None:
    """Each answer has a matcher of its own, with its own position."""
    first, second = (constrained_by(Grammar('root ::= "yes"')) for _ in range(2))
    assert first.add("ye")
    assert second.allowed() == {ord("y")}
    with pytest.raises(InvalidField):
        second.matcher.accept(ord("s"))
    assert first.add("s")
