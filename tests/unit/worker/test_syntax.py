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
def test_syntax_is_detected_from_the_template(template: str, syntax: Syntax) -> None:
    """A model writes calls in the format in which its template repeats old ones."""
    assert detect_syntax(template, knows_tools=True) == syntax


@pytest.mark.parametrize("template", [None, "", CODER, LLAMA, "[TOOL_CALLS]"])
def test_model_whose_template_has_no_tools_uses_the_generic_syntax(
    template: str | None,
) -> None:
    """A model whose template has no tools writes calls as the generic prompt describes them."""
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
    """A model thinks if its template contains markers of thoughts, even if only to remove them."""
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
def test_open_thought_at_the_end_of_a_prompt_is_detected(prompt: str, *, opens: bool) -> None:
    """A thought is open only if the prompt ends with its start marker and white space."""
    assert detect_syntax("<think>", knows_tools=False).opens_thought(prompt) == opens
    assert not HERMES.opens_thought(prompt)
