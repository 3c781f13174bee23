from __future__ import annotations

import json
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmd.engine.protocol import Tool, Tools
from llmd.errors import InvalidField
from llmd.worker.grammar.tools import tool_grammar
from llmd.worker.syntax import HERMES, ArgumentForm, Syntax
from tests.support.syntaxes import (
    LLAMA3,
    MISTRAL,
    MISTRAL_NAMED,
    QWEN3_CODER,
    SYNTAXES,
    THINKING,
)
from tests.support.tool_grammar_walk import (
    END,
    MARKERS,
    SCHEMAS,
    SPECIAL,
    ConstrainedAnswer,
    answer_under,
    is_valid,
    matcher_of,
    parse,
    tools_of,
)

_WITHOUT_CHANNELS = [syntax for syntax in SYNTAXES if syntax.channels is None]

# Texts that help a random answer to end before `num_choices` runs out.
_LIKELY = [
    "</parameter>", "</think>", '"', "}", '"}', "]", "C", "1", "\n", "é", "<tool", "<tool_call>",
]  # fmt: skip


def _opening(syntax: Syntax) -> str:
    """Return the marker that text begins with, as far as the prompt does not have it already."""
    return syntax.content_start.removeprefix(syntax.lead) if syntax.lead else ""


def _add_random_tokens(answer: ConstrainedAnswer, random: Random, num_choices: int) -> bool:
    """Append allowed tokens at random; return whether the answer may end."""
    while num_choices:
        if answer.matcher.is_stopped() or (answer.may_end() and random.random() < 0.2):
            return True
        tokens = sorted(answer.allowed() - {END})
        num_choices -= len(tokens) > 1
        if len(tokens) > 1 and random.random() < 0.5:
            answer.add(random.choice(_LIKELY))
            continue
        token = random.choice(tokens)
        assert answer.matcher.consume_token(token)
        if token < END:
            answer.raw.append(token)
        else:
            answer.raw += MARKERS[token - END - 1].encode()
    return answer.may_end()


@settings(max_examples=60, deadline=None)
@given(
    st.randoms(use_true_random=False),
    st.sampled_from(_WITHOUT_CHANNELS),
    st.lists(st.sampled_from(sorted(SCHEMAS)), min_size=1, unique=True),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_every_answer_that_a_grammar_allows_calls_tools_correctly(
    random: Random,
    syntax: Syntax,
    names: list[str],
    required: bool,
    parallel: bool,
    has_special: bool,
    is_thinking: bool,
) -> None:
    """Any answer that the grammar allows calls only the given tools, with valid arguments."""
    if syntax.calls.arguments is ArgumentForm.NESTED:
        # Lists that are written as elements are not bound to their schema.
        names = ["weather"]
    is_thinking = is_thinking and not syntax.lead
    if is_thinking:
        syntax = replace(syntax, thought_start="<think>", thought_end="</think>")
    tools = tools_of(*names, required=required, parallel=parallel)
    answer = answer_under(tools, syntax, has_special=has_special, is_thinking=is_thinking)
    begins_call = required
    if not required and random.random() < 0.8:
        thought = "Hm </thi</think>" if is_thinking else ""
        opening = thought + _opening(syntax)
        begins_call = answer.add(f"{opening}Let me [TOOL see. {syntax.call_start_marker}")
        assert begins_call
    if not _add_random_tokens(answer, random, 100):
        return
    text, thought, calls = parse(bytes(answer.raw), tools, syntax, is_thinking=is_thinking)
    assert all(is_valid(name, json.loads(arguments)) for name, arguments in calls)
    assert {name for name, _ in calls} <= set(names)
    assert parallel or len(calls) <= 1
    if begins_call:
        assert calls
        assert text == ("" if required else "Let me [TOOL see.")


_CALLS = {
    HERMES: ('<tool_call>\n{"name": "any", "arguments": ', "}\n</tool_call>", "\n"),
    MISTRAL_NAMED: ("[TOOL_CALLS]any[ARGS]", "", ""),
    LLAMA3: ('{"name": "any", "parameters": ', "}", "; "),
}


@pytest.mark.parametrize("has_special", [True, False])
@pytest.mark.parametrize("syntax", _CALLS)
def test_calls_are_in_the_format_of_the_model(syntax: Syntax, *, has_special: bool) -> None:
    """An answer is one call, or with `parallel` any number of calls, and ends behind them."""
    begin, end, between = _CALLS[syntax]
    call = begin + '{"a": [1, "b"]}' + end
    for required in (True, False):
        tools = tools_of("weather", "any", required=required)
        answer = answer_under(tools, syntax, has_special=has_special)
        assert answer.may_end() != required
        assert answer.add(call)
        assert answer.may_end()
        assert answer.add(between + call)
        assert not answer.add("x")
        single = tools_of("any", required=required, parallel=False)
        answer = answer_under(single, syntax, has_special=has_special)
        assert answer.add(call)
        assert not answer.add(between + call)


@pytest.mark.parametrize("space", ["", " "])
def test_calls_of_an_older_mistral_are_one_list(space: str) -> None:
    """Behind one marker, with or without a space, follows a list of one or more calls."""
    call = '{"name": "any", "arguments": {}}'
    answer = answer_under(tools_of("any"), MISTRAL)
    assert answer.add(f"[TOOL_CALLS]{space}[{call}, {call}]")
    assert answer.matcher.is_stopped()
    answer = answer_under(tools_of("any", parallel=False), MISTRAL)
    assert answer.add(f"[TOOL_CALLS]{space}[{call}")
    assert not answer.add(",")
    assert answer.add("]")


def test_parameters_in_tags_are_those_of_the_schema_in_its_order() -> None:
    """Required parameters must be there, others may; strings are plain and other values JSON."""
    begin = "<tool_call>\n<function=weather>\n<parameter=city>\nKö<ln\n</parameter>\n"
    unit = '<parameter=unit>\nF"\n</parameter>\n'
    end = "</function>\n</tool_call>"
    tools = tools_of("weather", "any", required=True)
    assert answer_under(tools, QWEN3_CODER).add(f"{begin}{unit}{end}")
    assert answer_under(tools, QWEN3_CODER).add(
        f"{begin}<parameter=days>\n5\n</parameter>\n{unit}{end}"
    )
    assert not answer_under(tools, QWEN3_CODER).add(f"{begin}{end}")
    assert not answer_under(tools, QWEN3_CODER).add(f"{begin}<parameter=days>\nmany")
    assert not answer_under(tools, QWEN3_CODER).add(f"{begin}<parameter=unit>\nK")
    assert answer_under(tools, QWEN3_CODER).add(
        f"<tool_call>\n<function=any>\n<parameter=a>\n1\n</parameter>\n{end}"
    )


@pytest.mark.parametrize("syntax", [HERMES, QWEN3_CODER])
def test_arguments_are_any_object_without_strict(syntax: Syntax) -> None:
    """Without `strict`, only the names of tools and the format of calls are enforced."""
    schema = '{"type": "object", "properties": {"a": {"type": "integer", "not": {"const": 5}}}}'
    tools = Tools(tools=[Tool(name="f", parameters=schema)], required=True)
    text = tool_grammar(tools, syntax, special=SPECIAL)
    matcher = matcher_of(text)
    assert "not" in matcher.get_error()
    answer = answer_under(tools, syntax, strict=False)
    assert answer.add(
        '<tool_call>\n{"name": "f", "arguments": {"b": [null]}}\n</tool_call>'
        if syntax is HERMES
        else "<tool_call>\n<function=f>\n<parameter=b>\n[null]\n</parameter>\n</function>"
        "\n</tool_call>"
    )
    assert not answer_under(tools, syntax, strict=False).add('<tool_call>\n{"name": "g')


def test_schema_that_admits_other_values_is_enforced_for_objects() -> None:
    """Arguments are an object on one line, even if the schema allows other values."""
    schema = '{"type": ["object", "null"], "x-guidance": {"whitespace_flexible": true}}'
    tools = Tools(tools=[Tool(name="f", parameters=schema)], required=True)
    begin = '<tool_call>\n{"name": "f", "arguments": '
    assert not answer_under(tools, HERMES).add(f"{begin}null")
    assert not answer_under(tools, HERMES).add(f'{begin}{{"a":\n')
    assert answer_under(tools, HERMES).add(f'{begin}{{"a": 1, "b": 2}}')


def test_schema_that_is_not_an_object_is_refused() -> None:
    """A schema that is not a JSON object is refused with the tool's name."""
    with pytest.raises(InvalidField, match="the tool f "):
        tool_grammar(Tools(tools=[Tool(name="f", parameters="5")]), HERMES, special={})


@pytest.mark.parametrize("name", ['a"b', "a\\b", "é\u2028😀", "a/b\t"])
def test_name_of_any_characters_is_enforced(name: str) -> None:
    """A tool's name may contain any character, which is escaped in JSON and in the grammar."""
    tools = Tools(tools=[Tool(name=name)], required=True, parallel=False)
    shown = json.dumps(name, ensure_ascii=False)
    answer = answer_under(tools, HERMES)
    assert answer.add(f'<tool_call>\n{{"name": {shown}, "arguments": {{}}}}\n</tool_call>')
    assert parse(bytes(answer.raw), tools, HERMES) == ("", "", [(name, "{}")])


@pytest.mark.parametrize("has_special", [True, False])
def test_text_is_free_until_a_call_begins(*, has_special: bool) -> None:
    """Text that only looks like a call is allowed, but behind a marker a call must follow."""
    answer = answer_under(tools_of("any"), HERMES, has_special=has_special)
    assert answer.add('No <tool>, no "tool_call", {"name": "any"} é\n\n')
    assert answer.may_end()
    assert answer.add("<tool_call>")
    assert not answer.may_end()
    assert answer.allowed() == {ord("\n")}


def test_special_tokens_are_as_free_in_text_as_without_tools() -> None:
    """Special tokens that are not markers of calls or thoughts are allowed in text."""
    for syntax in SYNTAXES:
        answer = answer_under(tools_of("any"), syntax)
        assert answer.add(f"{_opening(syntax)}a <other> b<other>")
        assert answer.may_end()


def test_llama_may_answer_with_an_object_that_is_no_call() -> None:
    """An object of a Llama is a call only if it begins like one, at the start of the answer."""
    assert answer_under(tools_of("any"), LLAMA3).add('{"temperature": 5}')
    assert answer_under(tools_of("any"), LLAMA3).add('It is {"name": "Anna"}')
    assert not answer_under(tools_of("any"), LLAMA3).add('{"name": "Anna')
    answer = answer_under(tools_of("any"), LLAMA3)
    assert answer.add('Well: <|python_tag|>{"name": "any", "parameters": {}}')
    assert answer.may_end()


@pytest.mark.parametrize("has_special", [True, False])
def test_thought_that_the_prompt_opened_ends_before_required_calls(*, has_special: bool) -> None:
    """A thought that the prompt opened may contain any text, but must end before the call."""
    tools = tools_of("any", required=True, parallel=False)
    call = '<tool_call>\n{"name": "any", "arguments": {}}\n</tool_call>'
    for space in ("", "\n", "\n\n"):
        answer = answer_under(tools, THINKING, has_special=has_special, is_thinking=True)
        assert answer.add("\nHm <thing>, <tool>.\n")
        assert not answer.may_end()
        # Other special tokens may end the answer too.
        assert not answer.allowed() & {END, SPECIAL["<other>"]}
        assert answer.add(f"</think>{space}{call}")
        assert answer.matcher.is_stopped()
    assert not answer_under(tools, THINKING, has_special=has_special).add("<think>")


def test_thoughts_are_free_if_calls_are_optional() -> None:
    """A marker of calls within a thought is text, and behind the thought it begins a call."""
    for is_thinking in (True, False):
        answer = answer_under(tools_of("any"), THINKING, is_thinking=is_thinking)
        assert answer.add("Hm <tool_call>?" if is_thinking else "<think>Hm <tool_call>?")
        assert answer.may_end()
        assert answer.add("</think>\n\nSo: <tool_call>")
        assert answer.allowed() == {ord("\n")}
    answer = answer_under(tools_of("any"), THINKING)
    assert answer.add("No need to think. <tool_call>\n")
    assert not answer.may_end()
