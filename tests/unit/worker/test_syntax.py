from __future__ import annotations

import pytest

from llmd.worker.syntax import (
    HERMES,
    LLAMA3,
    MISTRAL,
    MISTRAL_NAMED,
    QWEN3_CODER,
    Syntax,
    detect_syntax,
)

QWEN = '{{ \'<tool_call>\\n{"name": "\' + call.name + \'", "arguments": \' }}'
CODER = "<tool_call>\n<function={{ f.name }}>\n<parameter={{ key }}>\n{{ value }}\n</parameter>"
LLAMA = "{{ 'Environment: ipython' }}{{ '\"parameters\": ' }}{{ call.arguments | tojson }}"


@pytest.mark.parametrize(
    ("template", "syntax"),
    [
        (QWEN, HERMES),
        (CODER, QWEN3_CODER),
        ("[AVAILABLE_TOOLS]{{ '[TOOL_CALLS] [' + calls + ']' }}", MISTRAL),
        ("{{ '[TOOL_CALLS]' + f.name + '[ARGS]' + f.arguments }}", MISTRAL_NAMED),
        (LLAMA, LLAMA3),
        (LLAMA + "<|python_tag|>", LLAMA3),
        ("<function={{ f.name }}>{{ f.arguments }}</function>" + LLAMA, LLAMA3),
        ("{{ tools }}", HERMES),
    ],
    ids=["qwen", "coder", "mistral", "named", "llama", "tag", "other function", "unknown"],
)
def test_family_is_told_by_what_the_template_writes(template: str, syntax: Syntax) -> None:
    """The form in which a template repeats old calls is the one in which the model writes them."""
    assert detect_syntax(template, knows_tools=True) == syntax


@pytest.mark.parametrize("template", [None, "", CODER, LLAMA, "[TOOL_CALLS]"])
def test_model_whose_template_knows_no_tools_is_told_how_by_the_prompt(
    template: str | None,
) -> None:
    """Whatever the template mentions, such a model calls as the generic prompt says."""
    assert detect_syntax(template, knows_tools=False) == HERMES


@pytest.mark.parametrize("knows_tools", [True, False])
@pytest.mark.parametrize(
    ("template", "markers"),
    [
        ("{{ '<think>\\n' }}", ("<think>", "</think>")),
        ("{{ content.split('</think>')[-1] }}", ("<think>", "</think>")),
        ("[THINK]{{ thought }}[/THINK] not in <think>", ("[THINK]", "[/THINK]")),
        ("{{ content }}", ("", "")),
    ],
)
def test_markers_of_thoughts_are_the_templates(
    template: str, markers: tuple[str, str], *, knows_tools: bool
) -> None:
    """A model thinks if its template knows of thoughts, even if only to take them out."""
    syntax = detect_syntax(template, knows_tools=knows_tools)
    assert (syntax.thought_start_marker, syntax.thought_end_marker) == markers
    assert syntax.thinks == bool(markers[0])


@pytest.mark.parametrize(
    ("prompt", "opens"),
    [
        ("<|im_start|>assistant\n<think>\n", True),
        ("<|im_start|>assistant\n<think>", True),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", False),
        ("<|im_start|>assistant\n", False),
        ("", False),
    ],
)
def test_prompt_that_ends_in_an_open_thought_is_seen(prompt: str, *, opens: bool) -> None:
    """Only the marker at the very end, but for white space, leaves a thought open."""
    assert detect_syntax("<think>", knows_tools=False).opens_thought(prompt) == opens
    assert not HERMES.opens_thought(prompt)
