from __future__ import annotations

from dataclasses import replace

import pytest

from llmd.worker.syntax import HERMES
from tests.support.syntaxes import HARMONY
from tests.support.tool_grammar_walk import answer_under, parse, tools_of

_CALL = ' to=functions.any<|channel|>commentary json<|message|>{"a": 1}'
_THOUGHT = "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant"


@pytest.mark.parametrize("has_special", [True, False])
@pytest.mark.parametrize("thought", ["", _THOUGHT])
def test_required_call_is_a_message_for_the_tool(thought: str, *, has_special: bool) -> None:
    """A required call may follow a thought, and is a message to one of the tools."""
    tools = tools_of("weather", "any", required=True)
    answer = answer_under(tools, HARMONY, has_special=has_special)
    assert not answer.may_end()
    assert answer.add(thought + _CALL)
    assert answer.may_end()
    assert parse(bytes(answer.raw), tools, HARMONY) == (
        "",
        "Hm" if thought else "",
        [("any", '{"a": 1}')],
    )
    answer = answer_under(tools, HARMONY, has_special=has_special)
    assert not answer.add(f"{thought}<|channel|>final<|message|>Hi")


@pytest.mark.parametrize("has_special", [True, False])
def test_text_is_free_where_a_call_is_optional(*, has_special: bool) -> None:
    """An answer may be text, or a call with a header in any order of its words."""
    tools = tools_of("any")
    for text in ("<|channel|>final<|message|>Hi", f"{_THOUGHT}<|channel|>final<|message|>Hi"):
        answer = answer_under(tools, HARMONY, has_special=has_special)
        assert answer.add(text)
        assert answer.may_end()
    answer = answer_under(tools, HARMONY, has_special=has_special)
    head = "<|channel|>commentary to=functions.any<|message|>"
    assert answer.add(head)
    assert answer.allowed() == {ord("{")}
    assert answer.add('{"a": 1}')
    assert parse(bytes(answer.raw), tools, HARMONY) == ("", "", [("any", '{"a": 1}')])


@pytest.mark.parametrize("required", [True, False])
def test_calls_without_a_channel_are_in_the_general_form(*, required: bool) -> None:
    """Where the template writes no calls, they stand in a message for the user."""
    assert HARMONY.channels is not None
    syntax = replace(HARMONY, channels=replace(HARMONY.channels, recipient="", call_header=""))
    tools = tools_of("any", required=required)
    answer = answer_under(tools, syntax)
    call = '<tool_call>\n{"name": "any", "arguments": {}}\n</tool_call>'
    assert answer.add(f"<|channel|>final<|message|>{call}")
    assert HERMES.call_start_marker in call
    assert parse(bytes(answer.raw), tools, syntax) == ("", "", [("any", "{}")])
