from __future__ import annotations

import dataclasses
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from llmd.engine.protocol import Tools
from llmd.worker.syntax import SLOT, Syntax, pieces_of
from tests.support.parsing import ARGUMENTS, TOOLS, parse, parser_of
from tests.support.syntaxes import SYNTAXES

_WORD = re.compile(r"w\d+q")


def _markers(syntax: Syntax) -> list[str]:
    """Return all markers of a syntax, whole and in pieces."""
    texts: list[str] = []
    for part in (syntax, syntax.calls, syntax.channels):
        if part is not None:
            for field in dataclasses.fields(part):
                value = getattr(part, field.name)
                values = value if isinstance(value, tuple) else (value,)
                texts += [text for text in values if isinstance(text, str)]
    texts = [text.replace(SLOT, "0") for text in texts if text]
    return [*texts, *(piece for text in texts for piece in pieces_of(text))]


_OTHERS = [
    "weather", "now", "city", "days", ARGUMENTS, f'{{"name": "weather", "arguments": {ARGUMENTS}}}',
    f'{{"weather": {ARGUMENTS}}}', '"name"', "{", "}", "[", "]", "(", ")", "=", ":", ",", '"', "'",
    "\\", "<", ">", "|", "\n", "\n\n", " ", "é", "w1q", "w22q", "w333q",
]  # fmt: skip


@st.composite
def _answers(draw: st.DrawFn) -> tuple[Syntax, str]:
    syntax = draw(st.sampled_from(SYNTAXES))
    fragments = st.sampled_from([*_markers(syntax), *_OTHERS])
    return syntax, "".join(draw(st.lists(fragments, max_size=12)))


@settings(max_examples=300, deadline=None)
@given(
    _answers(),
    st.sets(st.integers(0, 400), max_size=40),
    st.booleans(),
    st.sampled_from([TOOLS, None]),
)
def test_any_output_is_read_and_no_word_of_it_is_lost(
    answer: tuple[Syntax, str], cuts: set[int], is_thinking: bool, tools: Tools | None
) -> None:
    """Whatever a model writes is read the same in any pieces, and its words are all there.

    Only a call that is cut off, and a message for a tool that does not exist, may be missing.
    """
    syntax, text = answer
    is_thinking = is_thinking and syntax.thinks
    whole = parse(parser_of(syntax, tools=tools, is_thinking=is_thinking), text)
    ends = [*sorted(cut for cut in cuts if cut < len(text)), len(text)]
    pieces = [text[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    assert parse(parser_of(syntax, tools=tools, is_thinking=is_thinking), *pieces) == whole
    shown = whole.text + whole.thought + "".join(arguments for _, arguments in whole.calls)
    missing = set(_WORD.findall(text)) - set(_WORD.findall(shown))
    heads = pieces_of(syntax.calls.section_start) + pieces_of(syntax.calls.start)
    may_be_call = syntax.calls.is_bare or any(
        head in text for head in [*heads, syntax.lead] if head
    )
    assert not missing or (tools is not None and may_be_call) or syntax.channels is not None
