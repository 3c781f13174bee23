"""How families of models write tool calls and thoughts in their answers."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace


class CallFormat(enum.Enum):
    """What a tool call consists of. ``f`` is the tool's name."""

    TAGGED_JSON = "tagged_json"
    """Between two markers ``{"name": "f", "arguments": {…}}``."""

    JSON_LIST = "json_list"
    """After one marker a list of such objects: all the calls of an answer."""

    NAME_AND_JSON = "name_and_json"
    """After the marker ``f[ARGS]{…}``."""

    BARE_JSON = "bare_json"
    """Such an object as the whole answer: its marker may be missing."""

    XML = "xml"
    """Between two markers ``<function=f>``, with a ``<parameter=…>`` for each argument."""


@dataclass(frozen=True)
class Syntax:
    """How one family of models writes.

    `arguments` is the key of a call's arguments. The markers of thoughts are empty where there
    are none; those of calls may be, as any marker, a special token of the model.
    """

    call_format: CallFormat
    call_start_marker: str
    call_end_marker: str = ""
    arguments_key: str = "arguments"
    thought_start_marker: str = ""
    thought_end_marker: str = ""

    @property
    def thinks(self) -> bool:
        """Whether an answer may begin with a thought."""
        return bool(self.thought_start_marker)

    def opens_thought(self, prompt: str) -> bool:
        """Tell from the end of a prompt whether the answer to it begins within a thought."""
        return self.thinks and prompt.rstrip().endswith(self.thought_start_marker)


ARGUMENTS_MARKER = "[ARGS]"
"""What stands between name and arguments in the form `NAMED`."""

CALL_ID_MARKER = "[CALL_ID]"
"""What some models of that form write between the two, followed by an id of their own."""

HERMES = Syntax(CallFormat.TAGGED_JSON, "<tool_call>", "</tool_call>")
"""Hermes, Qwen, SmolLM3; and every model whose template knows no tools: the prompt says how."""

MISTRAL = Syntax(CallFormat.JSON_LIST, "[TOOL_CALLS]")
"""Mistral's models with tools, at first."""

MISTRAL_NAMED = Syntax(CallFormat.NAME_AND_JSON, "[TOOL_CALLS]")
"""Mistral's models later."""

LLAMA3 = Syntax(CallFormat.BARE_JSON, "<|python_tag|>", arguments_key="parameters")
"""Llama from 3.1."""

QWEN3_CODER = Syntax(CallFormat.XML, "<tool_call>", "</tool_call>")
"""Qwen3-Coder."""

_THOUGHT_MARKERS = (("[THINK]", "[/THINK]"), ("<think>", "</think>"))


def has_known_call_format(template: str) -> bool:
    """Tell whether a template that knows tools has calls written in one of these forms.

    GLM's have Hermes' markers with something else between them.
    """
    markers = (
        HERMES.call_start_marker,
        MISTRAL.call_start_marker,
        LLAMA3.call_start_marker,
        "<function=",
    )
    is_llama = "ipython" in template and '"parameters"' in template
    return (any(marker in template for marker in markers) or is_llama) and (
        "<arg_key>" not in template
    )


def detect_syntax(template: str | None, *, knows_tools: bool) -> Syntax:
    """Return how a model writes, by the source of its chat template.

    A model whose template `knows_tools` in a form that is none of these is bound to `HERMES`.
    """
    source = template or ""
    syntax = _call_syntax(source) if knows_tools else HERMES
    for opening, closing in _THOUGHT_MARKERS:
        # Some templates only take thoughts out of old answers: they name the end alone.
        if opening in source or closing in source:
            return replace(syntax, thought_start_marker=opening, thought_end_marker=closing)
    return syntax


def _call_syntax(source: str) -> Syntax:
    if "<function=" in source and "<parameter=" in source:
        return QWEN3_CODER
    if MISTRAL.call_start_marker in source:
        return MISTRAL_NAMED if ARGUMENTS_MARKER in source else MISTRAL
    if HERMES.call_start_marker in source:
        return HERMES
    if LLAMA3.call_start_marker in source or ("ipython" in source and '"parameters"' in source):
        return LLAMA3
    return HERMES
