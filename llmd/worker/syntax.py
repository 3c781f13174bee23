"""How families of models write tool calls and thoughts in their answers."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace


class Form(enum.Enum):
    """What a tool call consists of. ``f`` is the tool's name."""

    OBJECT = "object"
    """Between two markers ``{"name": "f", "arguments": {…}}``."""

    ARRAY = "array"
    """After one marker a list of such objects: all the calls of an answer."""

    NAMED = "named"
    """After the marker ``f[ARGS]{…}``."""

    BARE = "bare"
    """Such an object as the whole answer: its marker may be missing."""

    XML = "xml"
    """Between two markers ``<function=f>``, with a ``<parameter=…>`` for each argument."""


@dataclass(frozen=True)
class Syntax:
    """How one family of models writes.

    `arguments` is the key of a call's arguments. The markers of thoughts are empty where there
    are none; those of calls may be, as any marker, a special token of the model.
    """

    form: Form
    call_open: str
    call_close: str = ""
    arguments: str = "arguments"
    thought_open: str = ""
    thought_close: str = ""

    @property
    def thinks(self) -> bool:
        """Whether an answer may begin with a thought."""
        return bool(self.thought_open)

    def opens_thought(self, prompt: str) -> bool:
        """Tell from the end of a prompt whether the answer to it begins within a thought."""
        return self.thinks and prompt.rstrip().endswith(self.thought_open)


ARGUMENTS_MARKER = "[ARGS]"
"""What stands between name and arguments in the form `NAMED`."""

CALL_ID_MARKER = "[CALL_ID]"
"""What some models of that form write between the two, followed by an id of their own."""

HERMES = Syntax(Form.OBJECT, "<tool_call>", "</tool_call>")
"""Hermes, Qwen, SmolLM3; and every model whose template knows no tools: the prompt says how."""

MISTRAL = Syntax(Form.ARRAY, "[TOOL_CALLS]")
"""Mistral's models with tools, at first."""

MISTRAL_NAMED = Syntax(Form.NAMED, "[TOOL_CALLS]")
"""Mistral's models later."""

LLAMA3 = Syntax(Form.BARE, "<|python_tag|>", arguments="parameters")
"""Llama from 3.1."""

QWEN3_CODER = Syntax(Form.XML, "<tool_call>", "</tool_call>")
"""Qwen3-Coder."""

_THOUGHTS = (("[THINK]", "[/THINK]"), ("<think>", "</think>"))


def has_known_form(template: str) -> bool:
    """Tell whether a template that knows tools has calls written in one of these forms.

    GLM's have Hermes' markers with something else between them.
    """
    markers = (HERMES.call_open, MISTRAL.call_open, LLAMA3.call_open, "<function=")
    is_llama = "ipython" in template and '"parameters"' in template
    return (any(marker in template for marker in markers) or is_llama) and (
        "<arg_key>" not in template
    )


def choose(template: str | None, *, knows_tools: bool) -> Syntax:
    """Return how a model writes, by the source of its chat template.

    A model whose template `knows_tools` in a form that is none of these is bound to `HERMES`.
    """
    source = template or ""
    syntax = _of_calls(source) if knows_tools else HERMES
    for opening, closing in _THOUGHTS:
        # Some templates only take thoughts out of old answers: they name the end alone.
        if opening in source or closing in source:
            return replace(syntax, thought_open=opening, thought_close=closing)
    return syntax


def _of_calls(source: str) -> Syntax:
    if "<function=" in source and "<parameter=" in source:
        return QWEN3_CODER
    if MISTRAL.call_open in source:
        return MISTRAL_NAMED if ARGUMENTS_MARKER in source else MISTRAL
    if HERMES.call_open in source:
        return HERMES
    if LLAMA3.call_open in source or ("ipython" in source and '"parameters"' in source):
        return LLAMA3
    return HERMES
