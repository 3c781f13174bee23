"""The syntax in which each family of models writes tool calls and thoughts."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace


class CallFormat(enum.Enum):
    """How a tool call is written. In the descriptions, ``f`` is the tool's name."""

    TAGGED_JSON = "tagged_json"
    """``{"name": "f", "arguments": {…}}`` between two markers."""

    JSON_LIST = "json_list"
    """One marker, then a list of such objects with all calls of the answer."""

    NAME_AND_JSON = "name_and_json"
    """A marker, then ``f[ARGS]{…}``."""

    BARE_JSON = "bare_json"
    """``{"name": "f", "parameters": {…}}`` as the whole answer, with or without a marker."""

    XML = "xml"
    """``<function=f>`` with a ``<parameter=…>`` for each argument, between two markers."""


@dataclass(frozen=True)
class Syntax:
    """The syntax of one family of models.

    Any marker may be a special token of the model or plain text. An end marker is empty if calls
    have none; both markers of thoughts are empty if the model does not think.
    """

    call_format: CallFormat
    call_start_marker: str
    call_end_marker: str = ""
    arguments_key: str = "arguments"
    """Key of the arguments in the JSON object of a call."""
    thought_start_marker: str = ""
    thought_end_marker: str = ""

    @property
    def thinks(self) -> bool:
        """Whether an answer may begin with a thought."""
        return bool(self.thought_start_marker)

    def opens_thought(self, prompt: str) -> bool:
        """Return whether a prompt ends with an open thought, so that the answer continues it."""
        return self.thinks and prompt.rstrip().endswith(self.thought_start_marker)


ARGUMENTS_MARKER = "[ARGS]"
"""Marker between name and arguments in the format `NAME_AND_JSON`."""

CALL_ID_MARKER = "[CALL_ID]"
"""Marker that some models write after the name, followed by an id that they make up."""

HERMES = Syntax(CallFormat.TAGGED_JSON, "<tool_call>", "</tool_call>")
"""Hermes, Qwen, SmolLM3, and each model whose template has no tools: the prompt explains it."""

MISTRAL = Syntax(CallFormat.JSON_LIST, "[TOOL_CALLS]")
"""Mistral's earlier models with tools."""

MISTRAL_NAMED = Syntax(CallFormat.NAME_AND_JSON, "[TOOL_CALLS]")
"""Mistral's later models."""

LLAMA3 = Syntax(CallFormat.BARE_JSON, "<|python_tag|>", arguments_key="parameters")
"""Llama from version 3.1 on."""

QWEN3_CODER = Syntax(CallFormat.XML, "<tool_call>", "</tool_call>")
"""Qwen3-Coder."""

_THOUGHT_MARKERS = (("[THINK]", "[/THINK]"), ("<think>", "</think>"))


def has_known_call_format(template: str) -> bool:
    """Return whether a template with tools writes calls in one of the formats above."""
    markers = (
        HERMES.call_start_marker,
        MISTRAL.call_start_marker,
        LLAMA3.call_start_marker,
        "<function=",
    )
    is_llama = "ipython" in template and '"parameters"' in template
    # GLM's templates write something else between the markers of Hermes.
    return (any(marker in template for marker in markers) or is_llama) and (
        "<arg_key>" not in template
    )


def detect_syntax(template: str | None, *, knows_tools: bool) -> Syntax:
    """Return the syntax of a model, detected from the source of its chat template.

    The result is `HERMES` for a model whose template does not know tools, and for one whose
    format of calls is unknown.
    """
    source = template or ""
    syntax = _call_syntax(source) if knows_tools else HERMES
    for opening, closing in _THOUGHT_MARKERS:
        # Some templates only remove thoughts from old answers, and contain the end marker alone.
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
