from __future__ import annotations

import json
from typing import Any

import pytest

from llmd.engine.protocol import Tool, Tools
from llmd.worker.syntax import Syntax
from tests.support.parsing import CALL, TOOLS, WEATHER, Answer, parse, parser_of
from tests.support.syntaxes import (
    APERTUS,
    FUNCTIONARY,
    GEMMA,
    HARMONY,
    KIMI,
    NESTED,
    PYTHON,
    QWEN3_CODER,
    THINKING,
    TYPED,
    WRAPPED,
)

_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "number": {"type": ["number", "string"]},
        "flag": {"type": "boolean"},
        "list": {"type": "array", "items": {"type": "integer"}},
        "object": {"type": "object", "properties": {"text": {"type": "string"}}},
    },
}
_TOOLS = Tools(tools=[Tool(name="f", parameters=json.dumps(_SCHEMA)), Tool(name="f_2")])


def _typed(*members: str) -> str:
    body = "".join(f"<|D|parameter {member}</|D|parameter>\n" for member in members)
    return f'<|D|calls>\n<|D|invoke name="f">\n{body}</|D|invoke>\n</|D|calls>'


def _nested(body: str) -> str:
    return f']|[<tool_call>\n]|[<invoke name="f">{body}]|[</invoke>\n]|[</tool_call>'


@pytest.mark.parametrize(
    ("syntax", "text", "calls"),
    [
        (APERTUS, '<|tools_prefix|>[{"f": {"a": 1}}, {"f_2": {}}]<|tools_suffix|>', [{"a": 1}, {}]),
        (
            KIMI,
            (
                "<|calls_begin|><|call_begin|>functions.f:0<|argument_begin|>{}<|call_end|>"
                '<|call_begin|>functions.f_2:1<|argument_begin|>{"a": 1}<|call_end|><|calls_end|>'
            ),
            [{}, {"a": 1}],
        ),
        # The section and the ends may be missing.
        (KIMI, "<|call_begin|>functions.f:0<|argument_begin|>{}", [{}]),
        (TYPED, _typed('name="text" string="true">5'), [{"text": "5"}]),
        (TYPED, _typed('name="number" string="false">5'), [{"number": 5}]),
        (TYPED, _typed('name="number" string="true">5'), [{"number": "5"}]),
        (TYPED, _typed('name="list" string="false">[1]'), [{"list": [1]}]),
        (TYPED, _typed(), [{}]),
        (NESTED, _nested("]|[<text>5]|[</text>"), [{"text": "5"}]),
        (
            NESTED,
            _nested("]|[<list>]|[<item>1]|[</item>]|[<item>2]|[</item>]|[</list>"),
            [{"list": [1, 2]}],
        ),
        (
            NESTED,
            _nested("]|[<object>]|[<text>a]|[</text>]|[</object>]|[<flag>true]|[</flag>"),
            [{"object": {"text": "a"}, "flag": True}],
        ),
        (
            GEMMA,
            (
                '<|tool_call>call:f{text:<|"|>a, "b"}<|"|>,list:[1,2],object:{text:<|"|>c<|"|>}}'
                "<tool_call|><|tool_call>call:f_2{}<tool_call|>"
            ),
            [{"text": 'a, "b"}', "list": [1, 2], "object": {"text": "c"}}, {}],
        ),
        (
            PYTHON,
            (
                "<|calls_begin|>[f(text='it\\'s \"a\"', flag=True, list=[1], "
                "object={'text': 'b)'}), "
                'f_2(a="x", b=None)]<|calls_end|>'
            ),
            [
                {"text": 'it\'s "a"', "flag": True, "list": [1], "object": {"text": "b)"}},
                {"a": "x", "b": None},
            ],
        ),
        (
            QWEN3_CODER,
            (
                "<tool_call>\n<function=f>\n<parameter=text>\n<![CDATA[a</parameter>b]]>\n"
                "</parameter>\n</function>\n</tool_call>"
            ),
            [{"text": "a</parameter>b"}],
        ),
    ],
)
def test_calls_of_every_form_are_read(syntax: Syntax, text: str, calls: list[Any]) -> None:
    """Arguments become JSON as their form and their schema say."""
    for chunks in ([text], list(text)):
        answer = parse(parser_of(syntax, tools=_TOOLS), *chunks)
        assert answer.text == ""
        assert [name for name, _ in answer.calls] == ["f", "f_2"][: len(calls)]
        assert [json.loads(arguments) for _, arguments in answer.calls] == calls


@pytest.mark.parametrize(
    ("syntax", "text"),
    [
        (KIMI, "<|call_begin|>functions.g:0<|argument_begin|>{} "),
        (KIMI, "<|call_begin|>functions.f_3:0<|argument_begin|>{} "),
        (GEMMA, "<|tool_call>call:f{text:}<tool_call|> "),
        (GEMMA, "<|tool_call>call:f{text<tool_call|>} "),
        (PYTHON, "<|calls_begin|>[f(1)]<|calls_end|> "),
        (PYTHON, "<|calls_begin|>[f(a='\\x zz')]<|calls_end|> "),
        (APERTUS, '<|tools_prefix|>[{"f": 5}] '),
        (TYPED, '<|D|calls>\n<|D|invoke name="f">\n<|D|x '),
    ],
)
def test_text_that_only_looks_like_a_call_of_any_form_is_text(syntax: Syntax, text: str) -> None:
    """What is not a whole call of one of the tools is text, unchanged."""
    for chunks in ([text], list(text)):
        assert parse(parser_of(syntax, tools=_TOOLS), *chunks) == Answer(text=text)


@pytest.mark.parametrize(
    ("syntax", "call"),
    [
        (KIMI, "<|call_begin|>functions.now:0<|argument_begin|>{}"),
        (TYPED, '<|D|calls>\n<|D|invoke name="now">\n</|D|invoke>'),
        (GEMMA, "<|tool_call>call:now{}"),
        (PYTHON, "<|calls_begin|>[now()"),
        (QWEN3_CODER, "<tool_call>\n<function=now>\n</function>"),
        (THINKING, '<tool_call>\n{"name": "now", "arguments": {}'),
        (HARMONY, "<|channel|>commentary to=functions.now<|message|>{}"),
    ],
)
def test_call_that_the_end_cuts_off_is_no_text(syntax: Syntax, call: str) -> None:
    """Wherever an answer ends behind the marker of a call, no part of the call is text."""
    marker = next((word for word in ("<tool_call>", "<|tool_call>") if call.startswith(word)), "")
    marker = marker or call[: call.index(">") + 1]
    for end in range(len(marker), len(call)):
        answer = parse(parser_of(syntax), call[:end])
        assert answer.text == ""
        assert answer.calls in ([], [("now", "{")], [("now", "{}")], [("now", "")])


def test_call_in_a_thought_without_an_end_is_found() -> None:
    """A model may forget to end its thought before it calls a tool."""
    for chunks in ([f"Hm.\n{CALL}\n"], list(f"Hm.\n{CALL}\n")):
        answer = parse(parser_of(THINKING, is_thinking=True), *chunks)
        assert answer == Answer(thought="Hm.", calls=[WEATHER])
    text = f"Hm {CALL} or <tool_call>?"
    answer = parse(parser_of(THINKING, is_thinking=True), f"{text}\n</think>\n\nYes")
    assert answer == Answer(thought=text, text="Yes")
    answer = parse(parser_of(THINKING, is_thinking=True), "Hm <tool_call> is a tag")
    assert answer == Answer(thought="Hm <tool_call> is a tag")


def test_text_stands_between_its_markers() -> None:
    """Markers around text and at the end of a turn are no text."""
    text = "<|think|>Hm<|/think|><|text|>Hello.<|/text|><|end_of_turn|>"
    for tools in (TOOLS, None):
        for chunks in ([text], list(text)):
            answer = parse(parser_of(WRAPPED, tools=tools), *chunks)
            assert answer == Answer(text="Hello.", thought="Hm")
    answer = parse(parser_of(WRAPPED), "<|text|>The token <|end_of_turn|> ends a turn.")
    assert answer.text == "The token <|end_of_turn|> ends a turn."
    # The prompt opened a thought, but the answer has none.
    assert parse(parser_of(WRAPPED, is_thinking=True), "<|text|>Hi") == Answer(text="Hi")


def test_thoughts_may_follow_text_where_markers_are_certain() -> None:
    """A thought behind text is found if its markers cannot be part of a text."""
    text = "<|channel>thought\nHm<channel|>Yes<|channel>thought\n<channel|>, it is<channel|>"
    for chunks in ([text], list(text)):
        assert parse(parser_of(GEMMA), *chunks) == Answer(text="Yes, it is", thought="Hm")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<|channel|>final<|message|>Hi<|return|>", Answer(text="Hi")),
        ("<|channel|>commentary<|message|>Let me see.", Answer(text="Let me see.")),
        (
            "<|channel|>analysis<|message|>Hm\n<|end|><|start|>assistant<|channel|>final<|message|>Hi",
            Answer(text="Hi", thought="Hm\n"),
        ),
        (
            (
                "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant to=functions.now"
                "<|channel|>commentary json<|message|>{}<|call|>"
            ),
            Answer(thought="Hm", calls=[("now", "{}")]),
        ),
        (
            "<|channel|>commentary to=functions.now <|constrain|>json<|message|>{}",
            Answer(calls=[("now", "{}")]),
        ),
        # A message to a tool that does not exist is for nobody.
        ("<|channel|>commentary to=python<|message|>print()", Answer()),
        # An answer in a prescribed form has no header.
        ('{"a": 1}', Answer(text='{"a": 1}')),
    ],
)
def test_messages_are_told_apart_by_their_headers(text: str, answer: Answer) -> None:
    """The channel and the recipient of a message say what it is."""
    for chunks in ([text], list(text)):
        assert parse(parser_of(HARMONY), *chunks) == answer


def test_answer_begins_within_the_marker_that_the_prompt_ends_with() -> None:
    """Text and calls begin with a marker whose beginning is in the prompt."""
    for text in ("all\nHi", "a", "Hi all"):
        answer = parse(parser_of(FUNCTIONARY), *text)
        assert answer.text == ("Hi" if text == "all\nHi" else f">>>{text}")
    assert parse(parser_of(FUNCTIONARY), "now\n{}") == Answer(calls=[("now", "{}")])


def test_continued_answer_has_nothing_before_its_text() -> None:
    """An answer that continues a text or thought begins within it."""
    for syntax in (FUNCTIONARY, HARMONY, WRAPPED, THINKING):
        parser = parser_of(syntax, is_continued=True)
        assert parse(parser, " and so on") == Answer(text=" and so on")
    thought = "Hm<|end|><|start|>assistant<|channel|>final<|message|>Yes"
    parser = parser_of(HARMONY, is_continued=True, is_thinking=True)
    assert parse(parser, thought) == Answer(thought="Hm", text="Yes")
