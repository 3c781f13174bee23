from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmd.engine.protocol import CallDelta, Delta, Reasoning, Tool, Tools
from llmd.errors import InvalidField
from llmd.worker.output import OutputParser
from llmd.worker.syntax import HERMES, LLAMA3, MISTRAL, MISTRAL_NAMED, QWEN3_CODER, Syntax
from llmd.worker.tool_grammar import tool_grammar

llguidance = pytest.importorskip("llguidance")

MARKERS = [
    "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>",
    "<think>", "</think>", "<other>",
]  # fmt: skip
END = 256
SPECIAL = {text: END + 1 + index for index, text in enumerate(MARKERS)}
SYNTAXES = [HERMES, MISTRAL, MISTRAL_NAMED, LLAMA3, QWEN3_CODER]
THINKING = replace(HERMES, thought_open="<think>", thought_close="</think>")

SCHEMAS: dict[str, dict[str, Any]] = {
    "weather": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 0, "maximum": 9},
            "unit": {"enum": ["C", 'F"']},
        },
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
    "send": {
        "$defs": {"to": {"type": "array", "items": {"const": None}, "maxItems": 2}},
        "properties": {"to": {"$ref": "#/$defs/to"}, "ok": {"type": "boolean"}},
        "required": ["to"],
        "additionalProperties": False,
    },
    "any": {},
}


class _Bytes:
    """A vocabulary of single bytes and special tokens."""

    eos_token_id = END
    bos_token_id = None

    def __init__(self, special: Sequence[str]) -> None:
        self.tokens = [bytes([byte]) for byte in range(256)] + [b"<end>"]
        self.tokens += [text.encode() for text in special]
        self.special_token_ids = list(range(END, len(self.tokens)))

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


def _tokenizer(special: Sequence[str]) -> Any:
    return llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Bytes(special)))


_WITH_SPECIAL, _WITHOUT = _tokenizer(MARKERS), _tokenizer([])


@dataclass
class Walk:
    """An answer that a grammar allows, and how far it is."""

    matcher: Any
    special: dict[str, int]
    text: str = ""
    raw: bytearray = field(default_factory=bytearray)

    def allowed(self) -> set[int]:
        mask = self.matcher.compute_bitmask()
        assert not self.matcher.is_error(), self.matcher.get_error()
        return {token for token in range(8 * len(mask)) if mask[token // 8] >> token % 8 & 1}

    def add(self, text: str) -> bool:
        """Go on by a text, with its special tokens as such; tell whether all was allowed."""
        while text:
            spelling = next((word for word in self.special if text.startswith(word)), "")
            piece = spelling or text[0]
            for token in [self.special[spelling]] if spelling else list(piece.encode()):
                if self.matcher.is_stopped() or token not in self.allowed():
                    return False
                assert self.matcher.consume_token(token)
            self.raw += piece.encode()
            text = text[len(piece) :]
        return True

    def may_end(self) -> bool:
        return bool(self.matcher.is_accepting())


def _walk(
    tools: Tools,
    syntax: Syntax,
    *,
    has_special: bool = True,
    is_thinking: bool = False,
    strict: bool = True,
) -> Walk:
    special = SPECIAL if has_special else {}
    text = tool_grammar(tools, syntax, special=special, is_thinking=is_thinking, strict=strict)
    matcher = llguidance.LLMatcher(_WITH_SPECIAL if has_special else _WITHOUT, text, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    return Walk(matcher, special)


def _tools(*names: str, required: bool = False, parallel: bool = True) -> Tools:
    tools = [Tool(name=name, parameters=json.dumps(SCHEMAS[name])) for name in names]
    return Tools(tools=tools, required=required, parallel=parallel)


def _parse(
    raw: bytes, tools: Tools, syntax: Syntax, *, is_thinking: bool = False
) -> tuple[str, str, list[tuple[str, str]]]:
    """Return text, thought and calls of an answer."""
    parser = OutputParser(syntax, request_id=1, tools=tools, is_thinking=is_thinking)
    text, thought = "", ""
    names: list[str] = []
    arguments: dict[int, str] = {}
    for event in parser.push(raw.decode("utf-8", "replace")) + parser.finish():
        if isinstance(event, Delta):
            text += event.text
        elif isinstance(event, Reasoning):
            thought += event.text
        elif isinstance(event, CallDelta):
            names += [event.name] if event.name else []
            arguments[event.index] = arguments.get(event.index, "") + event.arguments
    return text, thought, [(name, arguments[index]) for index, name in enumerate(names)]


def _is_valid(name: str, value: Any) -> bool:
    """Judge arguments by what the schemas above say."""
    if not isinstance(value, dict):
        return False
    if name == "weather":
        return (
            value.keys() <= {"city", "days", "unit"}
            and isinstance(value["city"], str)
            and value["unit"] in {"C", 'F"'}
            and value.get("days", 0) in range(10)
        )
    if name == "send":
        return (
            value.keys() <= {"to", "ok"}
            and value["to"] in ([], [None], [None, None])
            and value.get("ok", True) in {True, False}
        )
    return name == "any"


# Words that bring an answer to its end before the patience does.
_LIKELY = [
    "</parameter>", "</think>", '"', "}", '"}', "]", "C", "1", "\n", "é", "<tool", "<tool_call>",
]  # fmt: skip


def _wander(walk: Walk, random: Random, num_choices: int) -> bool:
    """Take allowed tokens at random; tell whether the answer came to an end."""
    while num_choices:
        if walk.matcher.is_stopped() or (walk.may_end() and random.random() < 0.2):
            return True
        tokens = sorted(walk.allowed() - {END})
        num_choices -= len(tokens) > 1
        if len(tokens) > 1 and random.random() < 0.5:
            walk.add(random.choice(_LIKELY))
            continue
        token = random.choice(tokens)
        assert walk.matcher.consume_token(token)
        if token < END:
            walk.raw.append(token)
        else:
            walk.raw += MARKERS[token - END - 1].encode()
    return walk.may_end()


@settings(max_examples=60, deadline=None)
@given(
    st.randoms(use_true_random=False),
    st.sampled_from(SYNTAXES),
    st.lists(st.sampled_from(sorted(SCHEMAS)), min_size=1, unique=True),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_every_answer_that_a_grammar_allows_is_calls_of_the_tools(
    random: Random,
    syntax: Syntax,
    names: list[str],
    required: bool,
    parallel: bool,
    has_special: bool,
    is_thinking: bool,
) -> None:
    """Whatever the model chooses: it calls a tool where it must, with arguments that are valid."""
    if is_thinking:
        syntax = replace(syntax, thought_open="<think>", thought_close="</think>")
    tools = _tools(*names, required=required, parallel=parallel)
    walk = _walk(tools, syntax, has_special=has_special, is_thinking=is_thinking)
    begins_call = required
    if not required and random.random() < 0.8:
        thought = "Hm </thi</think>" if is_thinking else ""
        begins_call = walk.add(f"{thought}Let me [TOOL see. {syntax.call_open}")
        assert begins_call
    if not _wander(walk, random, 100):
        return
    text, thought, calls = _parse(bytes(walk.raw), tools, syntax, is_thinking=is_thinking)
    assert all(_is_valid(name, json.loads(arguments)) for name, arguments in calls)
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
def test_calls_are_in_the_form_that_the_model_knows(syntax: Syntax, *, has_special: bool) -> None:
    """One call, or with `parallel` any number; then nothing but the end."""
    begin, end, between = _CALLS[syntax]
    call = begin + '{"a": [1, "b"]}' + end
    for required in (True, False):
        tools = _tools("weather", "any", required=required)
        walk = _walk(tools, syntax, has_special=has_special)
        assert walk.may_end() != required
        assert walk.add(call)
        assert walk.may_end()
        assert walk.add(between + call)
        assert not walk.add("x")
        single = _tools("any", required=required, parallel=False)
        walk = _walk(single, syntax, has_special=has_special)
        assert walk.add(call)
        assert not walk.add(between + call)


@pytest.mark.parametrize("space", ["", " "])
def test_calls_of_an_older_mistral_are_one_list(space: str) -> None:
    """Behind one marker, with or without a space, comes a list of one call or more."""
    call = '{"name": "any", "arguments": {}}'
    walk = _walk(_tools("any"), MISTRAL)
    assert walk.add(f"[TOOL_CALLS]{space}[{call}, {call}]")
    assert walk.matcher.is_stopped()
    walk = _walk(_tools("any", parallel=False), MISTRAL)
    assert walk.add(f"[TOOL_CALLS]{space}[{call}")
    assert not walk.add(",")
    assert walk.add("]")


def test_parameters_in_tags_are_those_of_the_schema_in_its_order() -> None:
    """Required parameters must come, others may; strings are plain, anything else is JSON."""
    begin = "<tool_call>\n<function=weather>\n<parameter=city>\nKö<ln\n</parameter>\n"
    unit = '<parameter=unit>\nF"\n</parameter>\n'
    end = "</function>\n</tool_call>"
    tools = _tools("weather", "any", required=True)
    assert _walk(tools, QWEN3_CODER).add(f"{begin}{unit}{end}")
    assert _walk(tools, QWEN3_CODER).add(f"{begin}<parameter=days>\n5\n</parameter>\n{unit}{end}")
    assert not _walk(tools, QWEN3_CODER).add(f"{begin}{end}")
    assert not _walk(tools, QWEN3_CODER).add(f"{begin}<parameter=days>\nmany")
    assert not _walk(tools, QWEN3_CODER).add(f"{begin}<parameter=unit>\nK")
    assert _walk(tools, QWEN3_CODER).add(
        f"<tool_call>\n<function=any>\n<parameter=a>\n1\n</parameter>\n{end}"
    )


@pytest.mark.parametrize("syntax", [HERMES, QWEN3_CODER])
def test_arguments_are_any_object_where_schemas_cannot_be_kept(syntax: Syntax) -> None:
    """Without `strict` a schema bounds nothing but the form, and the names of tools are kept."""
    schema = '{"type": "object", "properties": {"a": {"type": "integer", "not": {"const": 5}}}}'
    tools = Tools(tools=[Tool(name="f", parameters=schema)], required=True)
    text = tool_grammar(tools, syntax, special=SPECIAL)
    matcher = llguidance.LLMatcher(_WITH_SPECIAL, text, log_level=0)
    assert "not" in matcher.get_error()
    walk = _walk(tools, syntax, strict=False)
    assert walk.add(
        '<tool_call>\n{"name": "f", "arguments": {"b": [null]}}\n</tool_call>'
        if syntax is HERMES
        else "<tool_call>\n<function=f>\n<parameter=b>\n[null]\n</parameter>\n</function>"
        "\n</tool_call>"
    )
    assert not _walk(tools, syntax, strict=False).add('<tool_call>\n{"name": "g')


def test_schema_that_admits_other_values_is_kept_for_objects_alone() -> None:
    """Arguments are an object, and on one line, whatever the schema says of itself."""
    schema = '{"type": ["object", "null"], "x-guidance": {"whitespace_flexible": true}}'
    tools = Tools(tools=[Tool(name="f", parameters=schema)], required=True)
    begin = '<tool_call>\n{"name": "f", "arguments": '
    assert not _walk(tools, HERMES).add(f"{begin}null")
    assert not _walk(tools, HERMES).add(f'{begin}{{"a":\n')
    assert _walk(tools, HERMES).add(f'{begin}{{"a": 1, "b": 2}}')


def test_schema_that_is_no_object_is_refused() -> None:
    """The error is the caller's, with the tool's name."""
    with pytest.raises(InvalidField, match="the tool f "):
        tool_grammar(Tools(tools=[Tool(name="f", parameters="5")]), HERMES, special={})


@pytest.mark.parametrize("name", ['a"b', "a\\b", "é\u2028😀", "a/b\t"])
def test_name_of_any_letters_is_kept(name: str) -> None:
    """A tool's name is spelled as JSON has it, and as the grammar has it."""
    tools = Tools(tools=[Tool(name=name)], required=True, parallel=False)
    shown = json.dumps(name, ensure_ascii=False)
    walk = _walk(tools, HERMES)
    assert walk.add(f'<tool_call>\n{{"name": {shown}, "arguments": {{}}}}\n</tool_call>')
    assert _parse(bytes(walk.raw), tools, HERMES) == ("", "", [(name, "{}")])


@pytest.mark.parametrize("has_special", [True, False])
def test_text_is_free_until_a_call_begins(*, has_special: bool) -> None:
    """Text that only looks like a call is text; behind the marker there is no way back."""
    walk = _walk(_tools("any"), HERMES, has_special=has_special)
    assert walk.add('No <tool>, no "tool_call", {"name": "any"} é\n\n')
    assert walk.may_end()
    assert walk.add("<tool_call>")
    assert not walk.may_end()
    assert walk.allowed() == {ord("\n")}


def test_special_tokens_are_as_free_in_text_as_without_tools() -> None:
    """Only those that have a place of their own are bound to it."""
    for syntax in SYNTAXES:
        walk = _walk(_tools("any"), syntax)
        assert walk.add("a <other> b<other>")
        assert walk.may_end()


def test_llama_may_answer_with_an_object_that_is_no_call() -> None:
    """Only an object that begins as a call does is one, and only at the beginning."""
    assert _walk(_tools("any"), LLAMA3).add('{"temperature": 5}')
    assert _walk(_tools("any"), LLAMA3).add('It is {"name": "Anna"}')
    assert not _walk(_tools("any"), LLAMA3).add('{"name": "Anna')
    walk = _walk(_tools("any"), LLAMA3)
    assert walk.add('Well: <|python_tag|>{"name": "any", "parameters": {}}')
    assert walk.may_end()


@pytest.mark.parametrize("has_special", [True, False])
def test_thought_that_the_prompt_opened_ends_before_calls_that_must_come(
    *, has_special: bool
) -> None:
    """The thought is free, but for the answer's end."""
    tools = _tools("any", required=True, parallel=False)
    call = '<tool_call>\n{"name": "any", "arguments": {}}\n</tool_call>'
    for space in ("", "\n", "\n\n"):
        walk = _walk(tools, THINKING, has_special=has_special, is_thinking=True)
        assert walk.add("\nHm <thing>, <tool>.\n")
        assert not walk.may_end()
        # Other special tokens may end the answer too.
        assert not walk.allowed() & {END, SPECIAL["<other>"]}
        assert walk.add(f"</think>{space}{call}")
        assert walk.matcher.is_stopped()
    assert not _walk(tools, THINKING, has_special=has_special).add("<think>")


def test_thoughts_are_free_where_calls_may_come() -> None:
    """A marker of calls within a thought begins none; behind the thought it does."""
    for is_thinking in (True, False):
        walk = _walk(_tools("any"), THINKING, is_thinking=is_thinking)
        assert walk.add("Hm <tool_call>?" if is_thinking else "<think>Hm <tool_call>?")
        assert walk.may_end()
        assert walk.add("</think>\n\nSo: <tool_call>")
        assert walk.allowed() == {ord("\n")}
    walk = _walk(_tools("any"), THINKING)
    assert walk.add("No need to think. <tool_call>\n")
    assert not walk.may_end()
