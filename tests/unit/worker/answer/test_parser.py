from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmd.engine.protocol import CallDelta, Delta, Tool, Tools
from llmd.worker.syntax import HERMES, Syntax
from tests.support.parsing import (
    ARGUMENTS,
    CALL,
    CODER_ARGUMENTS,
    CODER_CALL,
    LLAMA_CALL,
    OBJECT,
    TOOLS,
    WEATHER,
    Answer,
    parse,
    parser_of,
)
from tests.support.syntaxes import (
    LLAMA3,
    MISTRAL,
    MISTRAL_NAMED,
    MISTRAL_WITH_ID,
    QWEN3_CODER,
    SYNTAXES,
    THINKING,
)


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
def test_pieces_of_an_answer_never_change_the_result(
    syntax: Syntax, fragments: list[str], cuts: set[int], is_thinking: bool, tools: Tools | None
) -> None:
    """Text, thought and calls of an answer do not depend on how it is split into pieces."""
    is_thinking = is_thinking and syntax.thinks
    text = "".join(fragments)
    whole = parse(parser_of(syntax, tools=tools, is_thinking=is_thinking), text)
    pieces = _cut(text, cuts)
    assert parse(parser_of(syntax, tools=tools, is_thinking=is_thinking), *pieces) == whole


@given(st.sampled_from([HERMES, MISTRAL, MISTRAL_NAMED, LLAMA3, QWEN3_CODER]), _fragments)
def test_text_without_calls_is_unchanged(syntax: Syntax, fragments: list[str]) -> None:
    """Without a call the text is unchanged, unless it ends within what may be one."""
    text = "".join(fragments)
    answer = parse(parser_of(syntax), text)
    if not answer.calls:
        assert text.startswith(answer.text)
        lost = text[len(answer.text) :].lstrip()
        assert not lost or lost.startswith(("<tool_call>", "<function=", "[TOOL", "<|python", "{"))


@given(_fragments)
def test_markers_are_text_where_there_are_no_tools(fragments: list[str]) -> None:
    """Markers of calls are text if the request has no tools."""
    text = "".join(fragments)
    assert parse(parser_of(HERMES, tools=None), text) == Answer(text=text)


@pytest.mark.parametrize(
    ("syntax", "text", "calls"),
    [
        (HERMES, CALL, [WEATHER]),
        (HERMES, f"{CALL}\n{CALL}", [WEATHER, WEATHER]),
        (HERMES, f"<tool_call>{OBJECT}</tool_call>{CALL}\n", [WEATHER, WEATHER]),
        (HERMES, f"<tool_call>\n{OBJECT}\n{CALL}", [WEATHER, WEATHER]),
        (HERMES, f"<tool_call>\n{OBJECT[:-1]}\n</tool_call>", [WEATHER]),
        (HERMES, '<tool_call>{"name": "now", "arguments": {}}', [("now", "{}")]),
        (HERMES, '<tool_call>{"name": "now"}</tool_call>', [("now", "{}")]),
        (HERMES, '<tool_call>{"arguments": {"a": 1}, "name": "now"}', [("now", '{"a": 1}')]),
        (
            HERMES,
            '<tool_call>{"id": 1, "name": "now", "arguments": {}, "x": [{}], "y": null}',
            [("now", "{}")],
        ),
        (MISTRAL, f"[TOOL_CALLS][{OBJECT}]", [WEATHER]),
        (MISTRAL, f"[TOOL_CALLS] [{OBJECT}, {OBJECT}]\n", [WEATHER, WEATHER]),
        (MISTRAL, f"[TOOL_CALLS]{OBJECT}", [WEATHER]),
        (MISTRAL, f"[TOOL_CALLS]weather[ARGS]{ARGUMENTS}", [WEATHER]),
        (
            MISTRAL_WITH_ID,
            f"[TOOL_CALLS]weather[ARGS]{ARGUMENTS}[TOOL_CALLS]now[CALL_ID]a1[ARGS] {{}}",
            [WEATHER, ("now", "{}")],
        ),
        (MISTRAL_NAMED, f"[TOOL_CALLS][{OBJECT}]", [WEATHER]),
        (LLAMA3, LLAMA_CALL, [WEATHER]),
        (LLAMA3, f"\n<|python_tag|>{LLAMA_CALL}", [WEATHER]),
        (LLAMA3, f"{LLAMA_CALL}; {LLAMA_CALL}\n{LLAMA_CALL}", [WEATHER] * 3),
        (LLAMA3, f'{{"type": "function", {LLAMA_CALL[1:]}', [WEATHER]),
        (QWEN3_CODER, CODER_CALL, [("weather", CODER_ARGUMENTS)]),
        (QWEN3_CODER, f"{CODER_CALL}\n{CODER_CALL}", [("weather", CODER_ARGUMENTS)] * 2),
        (QWEN3_CODER, CODER_CALL.removeprefix("<tool_call>\n"), [("weather", CODER_ARGUMENTS)]),
        (QWEN3_CODER, "<tool_call>\n<function=now>\n</function>\n</tool_call>", [("now", "{}")]),
    ],
)
def test_calls_are_parsed_in_every_format_that_a_family_writes(
    syntax: Syntax, text: str, calls: list[tuple[str, str]]
) -> None:
    """Each call has its name, and its arguments exactly as the model wrote them."""
    assert parse(parser_of(syntax), text) == Answer(calls=calls)


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
    """White space next to a call is dropped, and all other text is kept."""
    answer = parse(parser_of(syntax), f"  Let me  see.\n\n{call}\n Done. \n")
    assert answer == Answer(text="  Let me  see.Done. \n", calls=[WEATHER])


@pytest.mark.parametrize(
    "body",
    [
        " tag",
        "\n[]",
        "{}",
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
        "<function=other>\n</function>",
        "<function=now>\n1\n</function>",
        "<function=now\n</function>",
    ],
)
@pytest.mark.parametrize("syntax", [HERMES, QWEN3_CODER])
def test_text_that_only_looks_like_a_call_is_text(syntax: Syntax, body: str) -> None:
    """A marker without a call of one of the tools behind it is text."""
    text = f"Use \n<tool_call>{body}"
    assert parse(parser_of(syntax), text) == Answer(text=text)


def test_call_behind_a_marker_without_a_call_is_found() -> None:
    """A marker in the text does not hide the one of a call behind it."""
    answer = parse(parser_of(HERMES), f"I write <tool_call> now: {CALL}")
    assert answer == Answer(text="I write <tool_call> now:", calls=[WEATHER])


def test_call_that_is_cut_off_has_the_arguments_so_far() -> None:
    """A call that is cut off in its arguments is kept; what is cut off behind them is dropped."""
    for end in range(CALL.index("{", 20) + 1, len(CALL)):
        answer = parse(parser_of(HERMES), CALL[:end])
        assert answer.text == ""
        assert answer.calls == [("weather", CALL[CALL.index("{", 20) : end][: len(ARGUMENTS)])]
    call = '<tool_call>{"name": "now", "arguments": {}'
    assert parse(parser_of(HERMES), f'{call}, "id": "x') == Answer(calls=[("now", "{}")])
    # Text that is not part of a call is kept.
    assert parse(parser_of(HERMES), f"{call}, and so on") == Answer(
        text=", and so on", calls=[("now", "{}")]
    )


def test_rest_of_a_list_after_an_invalid_call_is_text() -> None:
    """In a list, the calls before an invalid one are kept, and the rest is text."""
    answer = parse(parser_of(MISTRAL), f'[TOOL_CALLS][{OBJECT}, {{"name": "other"}}]')
    assert answer == Answer(text=', {"name": "other"}]', calls=[WEATHER])


def test_arguments_come_as_the_model_writes_them() -> None:
    """The name is returned when the arguments begin, and each piece of them at once."""
    parser = parser_of(HERMES)
    head = CALL[: CALL.index("{", 20)]
    assert parser.push(head) == []
    assert parser.push('{"ci') == [
        CallDelta(id=7, index=0, name="weather"),
        CallDelta(id=7, index=0, arguments='{"ci'),
    ]
    assert parser.push('ty": ') == [CallDelta(id=7, index=0, arguments='ty": ')]
    assert parser.push('"}"}}\n') == [CallDelta(id=7, index=0, arguments='"}"}')]


def test_text_is_returned_as_soon_as_it_cannot_be_a_marker() -> None:
    """Only white space and the beginning of a marker are held back."""
    parser = parser_of(HERMES)
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
    """A Llama's JSON is returned as text as soon as it cannot be a call of a tool."""
    parser = parser_of(LLAMA3)
    events = parser.push(chunk)
    assert "".join(event.text for event in events if isinstance(event, Delta)).startswith(shown)
    assert bool(events) == bool(shown)
    assert parse(parser_of(LLAMA3), chunk) == Answer(text=chunk)


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"type": "string"}, "5", '"5"'),
        ({"type": "string"}, '\n"quoted"\n', '"\\n\\"quoted\\"\\n"'),
        ({"type": "integer"}, "5", "5"),
        ({"type": "number"}, " 1e400 ", "1e400"),
        ({"type": "array"}, '[1,\n "a"]', '[1,\n "a"]'),
        ({"type": "boolean"}, "True", "true"),
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
def test_values_in_tags_become_json_as_their_schema_declares(
    schema: object, value: str, expected: str
) -> None:
    """A value becomes a string if its schema says so or if it is not JSON."""
    parameters = json.dumps({"properties": {"a": schema}} if schema is not None else {})
    tools = Tools(tools=[Tool(name="f", parameters=parameters)])
    text = f"<tool_call>\n<function=f>\n<parameter=a>\n{value}\n</parameter>\n</function>"
    answer = parse(parser_of(QWEN3_CODER, tools=tools), text)
    assert answer.calls == [("f", f'{{"a": {expected}}}')]
    json.loads(answer.calls[0][1])


def test_empty_answer_has_no_events() -> None:
    """An empty answer has no events, and none follow the end."""
    parser = parser_of(THINKING)
    assert parser.push("") == []
    assert parser.finish() == []
    assert parser.finish() == []
