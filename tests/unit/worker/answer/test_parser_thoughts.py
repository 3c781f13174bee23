from __future__ import annotations

from dataclasses import replace

import pytest

from llmd.engine.protocol import Reasoning, Tools
from tests.support.parsing import (
    CALL,
    LLAMA_CALL,
    TOOLS,
    WEATHER,
    Answer,
    parse,
    parser_of,
)
from tests.support.syntaxes import LLAMA3, MAGISTRAL, THINKING


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
def test_thought_at_the_beginning_is_separated_from_the_answer(
    text: str, thought: str, rest: str, tools: Tools | None
) -> None:
    """Line ends around a thought and the white space behind it are dropped."""
    assert parse(parser_of(THINKING, tools=tools), text) == Answer(text=rest, thought=thought)


def test_answer_to_a_prompt_with_an_open_thought_begins_within_it() -> None:
    """The answer to a prompt with an open thought begins within the thought."""
    answer = parse(parser_of(THINKING, is_thinking=True), f"\nHm\n</think>\n\n{CALL}")
    assert answer == Answer(thought="Hm", calls=[WEATHER])
    answer = parse(parser_of(MAGISTRAL, is_thinking=True, tools=None), "Hm[/THINK]Yes")
    assert answer == Answer(text="Yes", thought="Hm")


def test_thought_is_returned_as_it_arrives() -> None:
    """Only line ends and the beginning of the end marker are held back."""
    parser = parser_of(THINKING)
    assert parser.push("<think>\nHm\n") == [Reasoning(7, "Hm")]
    assert parser.push("no</thi") == [Reasoning(7, "\nno")]
    assert parser.push("s") == [Reasoning(7, "</this")]


def test_thought_of_a_family_without_markers_for_calls_may_precede_one() -> None:
    """A JSON object behind a thought may be a call without a marker."""
    syntax = replace(LLAMA3, thought_start="<think>", thought_end="</think>")
    answer = parse(parser_of(syntax), f"<think>Hm</think>\n{LLAMA_CALL}")
    assert answer == Answer(thought="Hm", calls=[WEATHER])
