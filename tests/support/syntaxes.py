"""Syntaxes of all forms, for tests: what models of some families write."""

from __future__ import annotations

from dataclasses import replace

from llmd.worker.syntax import HERMES, SLOT, ArgumentForm, CallForm, Calls, Channels, Syntax

MISTRAL = Syntax(Calls(section_start="[TOOL_CALLS]", separator=", ", is_list=True))
"""One marker, then a list with all calls."""

MISTRAL_NAMED = Syntax(Calls(CallForm.NAMED, start="[TOOL_CALLS]", name_end="[ARGS]", separator=""))
"""The name and arguments."""

MISTRAL_WITH_ID = Syntax(
    Calls(
        CallForm.NAMED,
        start="[TOOL_CALLS]",
        name_end=f"[CALL_ID]{SLOT}[ARGS]",
        separator="",
    )
)
"""The name, an id, and arguments."""

LLAMA3 = Syntax(
    Calls(section_start="<|python_tag|>", separator="; ", arguments_key="parameters", is_bare=True)
)
"""Objects as the whole answer, with or without a marker."""

QWEN3_CODER = Syntax(
    Calls(
        CallForm.NAMED,
        ArgumentForm.TAGGED,
        start="<tool_call>\n<function=",
        end="\n</function>\n</tool_call>",
        name_end=">\n",
        argument_start="<parameter=",
        key_end=">\n",
        value_end="\n</parameter>",
        argument_separator="\n",
    )
)
"""A tag for each argument, whose text is the value."""

APERTUS = Syntax(
    Calls(
        CallForm.KEYED,
        section_start="<|tools_prefix|>",
        section_end="<|tools_suffix|>",
        separator=", ",
        is_list=True,
    )
)
"""Objects with the name as key."""

KIMI = Syntax(
    Calls(
        CallForm.NAMED,
        section_start="<|calls_begin|>",
        section_end="<|calls_end|>",
        start="<|call_begin|>functions.",
        end="<|call_end|>",
        separator="",
        name_end=f":{SLOT}<|argument_begin|>",
    )
)
"""A section, and in each call the name with an index."""

TYPED = Syntax(
    Calls(
        CallForm.NAMED,
        ArgumentForm.TAGGED,
        section_start="<|D|calls>\n",
        section_end="</|D|calls>",
        start='<|D|invoke name="',
        end="\n</|D|invoke>\n",
        separator="",
        name_end='">\n',
        argument_start='<|D|parameter name="',
        key_end=f'" string="{SLOT}">',
        string_type="true",
        other_type="false",
        value_end="</|D|parameter>",
        argument_separator="\n",
    )
)
"""Tags with the type of each value."""

NESTED = Syntax(
    Calls(
        CallForm.NAMED,
        ArgumentForm.NESTED,
        section_start="]|[<tool_call>\n",
        section_end="]|[</tool_call>",
        start=']|[<invoke name="',
        end="]|[</invoke>\n",
        separator="",
        name_end='">',
        argument_start="]|[<",
        key_end=">",
        value_end=f"]|[</{SLOT}>",
    )
)
"""Elements, with elements inside for objects and lists."""

GEMMA = Syntax(
    Calls(
        CallForm.NAMED,
        ArgumentForm.PAIRS,
        start="<|tool_call>call:",
        end="<tool_call|>",
        separator="",
        arguments_start="{",
        key_end=":",
        argument_separator=",",
        arguments_end="}",
        quote='<|"|>',
    ),
    thought_start="<|channel>thought\n",
    thought_end="\n<channel|>",
    thinks_again=True,
)
"""Pairs of key and value, with quotes of several characters."""

PYTHON = Syntax(
    Calls(
        CallForm.NAMED,
        ArgumentForm.PAIRS,
        section_start="<|calls_begin|>[",
        section_end="]<|calls_end|>",
        separator=", ",
        arguments_start="(",
        key_end="=",
        argument_separator=", ",
        arguments_end=")",
        quote="'",
    )
)
"""Calls of functions as Python has them."""

HARMONY = Syntax(
    channels=Channels(
        start="<|start|>assistant",
        message="<|message|>",
        ends=("<|end|>", "<|return|>", "<|call|>"),
        thought_header="<|channel|>analysis",
        content_header="<|channel|>final",
        recipient="to=functions.",
        call_header=f" to=functions.{SLOT}<|channel|>commentary json",
        call_end="<|call|>",
    )
)
"""Messages with headers."""

WRAPPED = Syntax(
    Calls(section_start="<|action|>", section_end="<|/action|>", separator=", ", is_list=True),
    thought_start="<|think|>",
    thought_end="<|/think|>",
    content_start="<|text|>",
    content_end="<|/text|>",
    turn_end=("<|end_of_turn|>",),
)
"""Text between markers too."""

FUNCTIONARY = Syntax(
    Calls(CallForm.NAMED, start=">>>", name_end="\n", separator=""),
    content_start=">>>all\n",
    lead=">>>",
)
"""The prompt ends with the first marker of the answer."""

THINKING = replace(HERMES, thought_start="<think>\n", thought_end="\n</think>\n\n")
MAGISTRAL = replace(MISTRAL_NAMED, thought_start="[THINK]", thought_end="[/THINK]")

SYNTAXES = [
    HERMES, MISTRAL, MISTRAL_NAMED, MISTRAL_WITH_ID, LLAMA3, QWEN3_CODER, APERTUS, KIMI, TYPED,
    NESTED, GEMMA, PYTHON, HARMONY, WRAPPED, FUNCTIONARY, THINKING, MAGISTRAL,
]  # fmt: skip
