from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmd.engine.protocol import CallDelta, Delta, Reasoning, Tool, Tools
from llmd.worker.output import OutputParser, Parsed
from llmd.worker.syntax import HERMES, LLAMA3, MISTRAL, MISTRAL_NAMED, QWEN3_CODER, Syntax

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
}
TOOLS = Tools(tools=[Tool(name="weather", parameters=json.dumps(SCHEMA)), Tool(name="now")])
ARGUMENTS = '{"city": "K}ö\\"l{n", "days":  3}'
OBJECT = f'{{"name": "weather", "arguments": {ARGUMENTS}}}'
CALL = f"<tool_call>\n{OBJECT}\n</tool_call>"
LLAMA_CALL = f'{{"name": "weather", "parameters": {ARGUMENTS}}}'
CODER_CALL = (
    "<tool_call>\n<function=weather>\n<parameter=city>\nKöln\n</parameter>\n"
    "<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>"
)
CODER_ARGUMENTS = '{"city": "Köln", "days": 3}'

THINKING = replace(HERMES, thought_open="<think>", thought_close="</think>")
MAGISTRAL = replace(MISTRAL_NAMED, thought_open="[THINK]", thought_close="[/THINK]")
SYNTAXES = [HERMES, MISTRAL, MISTRAL_NAMED, LLAMA3, QWEN3_CODER, THINKING, MAGISTRAL]


@dataclass
class Answer:
    """What came out, joined."""

    text: str = ""
    thought: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)

    def add(self, event: Parsed) -> None:
        if isinstance(event, Delta):
            assert event.text
            self.text += event.text
        elif isinstance(event, Reasoning):
            assert event.text
            self.thought += event.text
        elif event.name:
            assert event.index == len(self.calls)
            assert not event.arguments
            self.calls.append((event.name, ""))
        else:
            assert event.index == len(self.calls) - 1
            assert event.arguments
            name, arguments = self.calls.pop()
            self.calls.append((name, arguments + event.arguments))


def _parser(
    syntax: Syntax, *, tools: Tools | None = TOOLS, is_thinking: bool = False
) -> OutputParser:
    return OutputParser(syntax, request_id=7, tools=tools, is_thinking=is_thinking)


def _parse(parser: OutputParser, *chunks: str) -> Answer:
    answer = Answer()
    events = [event for chunk in chunks for event in parser.push(chunk)]
    for event in events + parser.finish():
        assert event.id == 7
        answer.add(event)
    assert parser.has_calls == bool(answer.calls)
    return answer


def _cut(text: str, cuts: set[int]) -> list[str]:
    ends = [*sorted(cut for cut in cuts if cut < len(text)), len(text)]
    return [text[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


_fragments = st.lists(
    st.sampled_from([
        CALL, OBJECT, LLAMA_CALL, CODER_CALL, ARGUMENTS,
        "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>",
        "<think>", "</think>", "[THINK]", "[/THINK]",
        "<function=", "weather", ">", "<parameter=city>", "</parameter>", "</function>",
        '{"name": "weather", ', '"arguments": ', '{"arguments": {}, ', '"name": "now"', '"id": "x"',
        "{", "}", "[", "]", "<", '"', "\\", ",", ":", ";", " ", "\n", "\n\n", "text", "é",
    ]),
    max_size=10,
)  # fmt: skip


@given(
    st.sampled_from(SYNTAXES),
    _fragments,
    st.sets(st.integers(0, 200), max_size=30),
    st.booleans(),
    st.sampled_from([TOOLS, None]),
)
@example(THINKING, ["<think>", "\n", "<", "</think>", "\n", CALL], set(range(200)), False, TOOLS)
@example(MISTRAL, ["[TOOL_CALLS]", "[", OBJECT, ",", "{"], set(range(200)), False, TOOLS)
def test_pieces_of_an_answer_never_change_what_comes_out(
    syntax: Syntax, fragments: list[str], cuts: set[int], is_thinking: bool, tools: Tools | None
) -> None:
    """However the answer is cut, text, thought and calls are the same, joined."""
    is_thinking = is_thinking and syntax.thinks
    text = "".join(fragments)
    whole = _parse(_parser(syntax, tools=tools, is_thinking=is_thinking), text)
    pieces = _cut(text, cuts)
    assert _parse(_parser(syntax, tools=tools, is_thinking=is_thinking), *pieces) == whole


@given(st.sampled_from([HERMES, MISTRAL, MISTRAL_NAMED, LLAMA3, QWEN3_CODER]), _fragments)
def test_text_without_calls_comes_out_as_it_is(syntax: Syntax, fragments: list[str]) -> None:
    """Where nothing is a call, no letter is lost, white space and markers included."""
    text = "".join(fragments)
    answer = _parse(_parser(syntax), text)
    if not answer.calls:
        assert answer.text == text


@given(_fragments)
def test_markers_are_text_where_there_are_no_tools(fragments: list[str]) -> None:
    """Without tools an answer may well be about tool calls."""
    text = "".join(fragments)
    assert _parse(_parser(HERMES, tools=None), text) == Answer(text=text)


_WEATHER = ("weather", ARGUMENTS)


@pytest.mark.parametrize(
    ("syntax", "text", "calls"),
    [
        (HERMES, CALL, [_WEATHER]),
        (HERMES, f"{CALL}\n{CALL}", [_WEATHER, _WEATHER]),
        (HERMES, f"<tool_call>{OBJECT}</tool_call>{CALL}\n", [_WEATHER, _WEATHER]),
        (HERMES, f"<tool_call>\n{OBJECT}\n{CALL}", [_WEATHER, _WEATHER]),
        (HERMES, f"<tool_call>\n{OBJECT[:-1]}\n</tool_call>", [_WEATHER]),
        (HERMES, '<tool_call>{"name": "now", "arguments": {}}', [("now", "{}")]),
        (HERMES, '<tool_call>{"name": "now"}</tool_call>', [("now", "{}")]),
        (HERMES, '<tool_call>{"arguments": {"a": 1}, "name": "now"}', [("now", '{"a": 1}')]),
        (
            HERMES,
            '<tool_call>{"id": 1, "name": "now", "arguments": {}, "x": [{}], "y": null}',
            [("now", "{}")],
        ),
        (MISTRAL, f"[TOOL_CALLS][{OBJECT}]", [_WEATHER]),
        (MISTRAL, f"[TOOL_CALLS] [{OBJECT}, {OBJECT}]\n", [_WEATHER, _WEATHER]),
        (MISTRAL, f"[TOOL_CALLS]{OBJECT}", [_WEATHER]),
        (MISTRAL, f"[TOOL_CALLS]weather[ARGS]{ARGUMENTS}", [_WEATHER]),
        (
            MISTRAL_NAMED,
            f"[TOOL_CALLS]weather[ARGS]{ARGUMENTS}[TOOL_CALLS]now[CALL_ID]a1[ARGS] {{}}",
            [_WEATHER, ("now", "{}")],
        ),
        (MISTRAL_NAMED, f"[TOOL_CALLS][{OBJECT}]", [_WEATHER]),
        (LLAMA3, LLAMA_CALL, [_WEATHER]),
        (LLAMA3, f"\n<|python_tag|>{LLAMA_CALL}", [_WEATHER]),
        (LLAMA3, f"{LLAMA_CALL}; {LLAMA_CALL}\n{LLAMA_CALL}", [_WEATHER] * 3),
        (LLAMA3, f'{{"type": "function", {LLAMA_CALL[1:]}', [_WEATHER]),
        (QWEN3_CODER, CODER_CALL, [("weather", CODER_ARGUMENTS)]),
        (QWEN3_CODER, f"{CODER_CALL}\n{CODER_CALL}", [("weather", CODER_ARGUMENTS)] * 2),
        (QWEN3_CODER, CODER_CALL.removeprefix("<tool_call>\n"), [("weather", CODER_ARGUMENTS)]),
        (QWEN3_CODER, "<tool_call>\n<function=now>\n</function>\n</tool_call>", [("now", "{}")]),
    ],
)
def test_calls_are_read_in_every_form_that_a_family_writes(
    syntax: Syntax, text: str, calls: list[tuple[str, str]]
) -> None:
    """Each call has its name, and its arguments letter by letter as the model wrote them."""
    assert _parse(_parser(syntax), text) == Answer(calls=calls)


@pytest.mark.parametrize(
    ("syntax", "call"),
    [
        (HERMES, CALL),
        (MISTRAL, f"[TOOL_CALLS][{OBJECT}]"),
        (LLAMA3, f"<|python_tag|>{LLAMA_CALL}"),
    ],
)
def test_text_around_calls_is_text_without_the_white_space_between(
    syntax: Syntax, call: str
) -> None:
    """Text before and after a call is kept; the white space next to the call is not text."""
    answer = _parse(_parser(syntax), f"  Let me  see.\n\n{call}\n Done. \n")
    assert answer == Answer(text="  Let me  see.Done. \n", calls=[_WEATHER])


@pytest.mark.parametrize(
    "body",
    [
        "",
        " tag",
        "\n{",
        "\n[]",
        "{}",
        '{"name": "weather"',
        '{"name": "other", "arguments": {}}',
        '{"name": 5, "arguments": {}}',
        '{"name": "\\x", "arguments": {}}',
        '{"name": "weather", "arguments": "{}"}',
        '{"name": "weather" "arguments": {}}',
        '{"name": "weather", }',
        '{"temperature": 5, "name": "now"}',
        '{"arguments": {}}',
        '{"arguments": {"a": 1}, "name": "other"}',
        '{"id": , "name": "now"}',
        "now{}",
        "now[ARGS]5",
        "other[ARGS]{}",
        "<function",
        "<function=other>\n</function>",
        "<function=now>\n<parameter=a>\n1\n</function>",
        "<function=now>\n1\n</function>",
        "<function=now\n</function>",
    ],
)
@pytest.mark.parametrize("syntax", [HERMES, QWEN3_CODER])
def test_what_is_no_call_comes_out_as_text(syntax: Syntax, body: str) -> None:
    """A marker with anything but a call of one of the tools behind it stays what it was."""
    text = f"Use \n<tool_call>{body}"
    assert _parse(_parser(syntax), text) == Answer(text=text)


def test_call_behind_what_is_none_is_a_call() -> None:
    """A marker in the text does not hide the one that counts."""
    answer = _parse(_parser(HERMES), f"I write <tool_call> now: {CALL}")
    assert answer == Answer(text="I write <tool_call> now:", calls=[_WEATHER])


def test_call_that_is_cut_is_as_far_as_it_came() -> None:
    """Once its arguments have begun a call is one; what is cut behind them is dropped."""
    for end in range(CALL.index("{", 20) + 1, len(CALL)):
        answer = _parse(_parser(HERMES), CALL[:end])
        assert answer.text == ""
        assert answer.calls == [("weather", CALL[CALL.index("{", 20) : end][: len(ARGUMENTS)])]
    call = '<tool_call>{"name": "now", "arguments": {}'
    assert _parse(_parser(HERMES), f'{call}, "id": "x') == Answer(calls=[("now", "{}")])
    # What is no part of a call at all is not lost.
    assert _parse(_parser(HERMES), f"{call}, and so on") == Answer(
        text=", and so on", calls=[("now", "{}")]
    )


def test_rest_of_a_list_that_is_none_comes_out_as_text() -> None:
    """The calls before stay; what is no further call is not lost."""
    answer = _parse(_parser(MISTRAL), f'[TOOL_CALLS][{OBJECT}, {{"name": "other"}}]')
    assert answer == Answer(text=', {"name": "other"}]', calls=[_WEATHER])


def test_arguments_come_as_the_model_writes_them() -> None:
    """The name comes when the arguments begin, and each piece of these at once."""
    parser = _parser(HERMES)
    head = CALL[: CALL.index("{", 20)]
    assert parser.push(head) == []
    assert parser.push('{"ci') == [
        CallDelta(id=7, index=0, name="weather"),
        CallDelta(id=7, index=0, arguments='{"ci'),
    ]
    assert parser.push('ty": ') == [CallDelta(id=7, index=0, arguments='ty": ')]
    assert parser.push('"}"}}\n') == [CallDelta(id=7, index=0, arguments='"}"}')]


def test_text_is_given_away_as_soon_as_it_can_be_no_marker() -> None:
    """Only white space and the beginning of a marker are held back."""
    parser = _parser(HERMES)
    assert parser.push("one \n") == [Delta(7, "one")]
    assert parser.push("two <tool") == [Delta(7, " \ntwo")]
    assert parser.push("s> <") == [Delta(7, " <tools>")]
    assert parser.finish() == [Delta(7, " <")]


@pytest.mark.parametrize(
    ("chunk", "shown"),
    [
        ('{"name": "wea', ""),
        ('{"parameters": {"a": 1}, ', ""),
        ('{"name": "Anna"', '{"name": "Anna"'),
        ('{"age": 5', '{"age"'),
        ('{"name" 5', '{"name" '),
        ("{5", "{"),
        ('a {"name": "weather"', 'a {"name": "weather"'),
    ],
)
def test_object_without_a_marker_is_held_while_it_could_be_a_call(chunk: str, shown: str) -> None:
    """JSON that a Llama answers with is shown as soon as it can be no call of a tool."""
    parser = _parser(LLAMA3)
    events = parser.push(chunk)
    assert "".join(event.text for event in events if isinstance(event, Delta)).startswith(shown)
    assert bool(events) == bool(shown)
    assert _parse(_parser(LLAMA3), chunk) == Answer(text=chunk)


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"type": "string"}, "5", '"5"'),
        ({"type": "string"}, '\n"quoted"\n', '"\\n\\"quoted\\"\\n"'),
        ({"type": "integer"}, "5", "5"),
        ({"type": "number"}, " 1e400 ", "1e400"),
        ({"type": "array"}, '[1,\n "a"]', '[1,\n "a"]'),
        ({"type": "boolean"}, "True", '"True"'),
        ({"type": "number"}, "NaN", '"NaN"'),
        ({"type": ["string", "null"]}, "null", "null"),
        ({"type": ["string", "null"]}, "5", '"5"'),
        ({"type": ["string", "number"]}, "5", "5"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, '"a"', '"\\"a\\""'),
        ({"$ref": "#/$defs/a"}, '{"a": 1}', '{"a": 1}'),
        ({}, "5", "5"),
        ({}, "five < six", '"five < six"'),
        (None, "5", "5"),
    ],
)
def test_values_in_tags_become_json_by_what_their_schema_declares(
    schema: object, value: str, expected: str
) -> None:
    """A string is taken as it is written, anything else as JSON, if it is that."""
    parameters = json.dumps({"properties": {"a": schema}} if schema is not None else {})
    tools = Tools(tools=[Tool(name="f", parameters=parameters)])
    text = f"<tool_call>\n<function=f>\n<parameter=a>\n{value}\n</parameter>\n</function>"
    answer = _parse(_parser(QWEN3_CODER, tools=tools), text)
    assert answer.calls == [("f", f'{{"a": {expected}}}')]
    json.loads(answer.calls[0][1])


@pytest.mark.parametrize("tools", [TOOLS, None])
@pytest.mark.parametrize(
    ("text", "thought", "rest"),
    [
        ("<think>\n\nHm <tool_call>.\n\nSo.\n</think>\n\nYes. ", "Hm <tool_call>.\n\nSo.", "Yes. "),
        ("\n <think>Hm</think>Yes", "Hm", "Yes"),
        ("<think>\n\n</think>\n\nYes", "", "Yes"),
        ("<think>Hm </thin", "Hm </thin", ""),
        ("<think>Hm\n", "Hm", ""),
        ("Yes <think>Hm</think>", "", "Yes <think>Hm</think>"),
        ("<thinking>", "", "<thinking>"),
        (" \n", "", " \n"),
    ],
)
def test_thought_at_the_beginning_is_told_from_the_answer(
    text: str, thought: str, rest: str, tools: Tools | None
) -> None:
    """Line ends around a thought and the white space behind it are neither thought nor answer."""
    assert _parse(_parser(THINKING, tools=tools), text) == Answer(text=rest, thought=thought)


def test_answer_to_a_prompt_with_an_open_thought_begins_within_it() -> None:
    """The opening marker stands in the prompt, the closing one in the answer."""
    answer = _parse(_parser(THINKING, is_thinking=True), f"\nHm\n</think>\n\n{CALL}")
    assert answer == Answer(thought="Hm", calls=[_WEATHER])
    answer = _parse(_parser(MAGISTRAL, is_thinking=True, tools=None), "Hm[/THINK]Yes")
    assert answer == Answer(text="Yes", thought="Hm")


def test_thought_is_given_away_as_it_comes() -> None:
    """Only line ends and the beginning of the closing marker are held back."""
    parser = _parser(THINKING)
    assert parser.push("<think>\nHm\n") == [Reasoning(7, "Hm")]
    assert parser.push("no</thi") == [Reasoning(7, "\nno")]
    assert parser.push("s") == [Reasoning(7, "</this")]


def test_thought_of_a_family_without_markers_for_calls_may_precede_one() -> None:
    """After the thought an object may be a call as at the beginning."""
    syntax = replace(LLAMA3, thought_open="<think>", thought_close="</think>")
    answer = _parse(_parser(syntax), f"<think>Hm</think>\n{LLAMA_CALL}")
    assert answer == Answer(thought="Hm", calls=[_WEATHER])


def test_nothing_comes_of_nothing() -> None:
    """An answer without text has no event, and none comes after the end."""
    parser = _parser(THINKING)
    assert parser.push("") == []
    assert parser.finish() == []
    assert parser.finish() == []
