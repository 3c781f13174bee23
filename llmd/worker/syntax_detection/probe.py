"""Render a chat template with texts that can be found again in the result."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from llmd.engine.protocol import Tool, Tools
from llmd.errors import InvalidField

Render = Callable[[Mapping[str, Any]], str]
"""Renders a template with the given values, or raises `InvalidField`."""

MAX_ANALYSIS_S = 1.0
"""CPU time limit of all renderings of one template together."""

USER, CONTENT, THOUGHT = "usersentinel", "contentsentinel", "thoughtsentinel"
NAMES = ("firstfunction", "secondfunction")
IDS = ("firstid01", "secondid2")
"""Ids of calls. Mistral's templates require nine letters and digits."""
TEXT_KEY, NUMBER_KEY = "argalpha", "argbeta"
"""Names of arguments, in the order in which templates that sort them write them."""
TEXTS = ("valueone", "valuetwo")
NUMBER = 471147

ARGUMENTS: tuple[dict[str, Any], ...] = (
    {TEXT_KEY: TEXTS[0], NUMBER_KEY: NUMBER},
    {TEXT_KEY: TEXTS[1]},
)

_SCHEMA = {
    "type": "object",
    "properties": {
        TEXT_KEY: {"type": "string", "description": "A text."},
        NUMBER_KEY: {"type": "integer", "description": "A number."},
    },
    "required": [TEXT_KEY],
}

TOOLS = Tools(tools=[Tool(name=name, parameters=json.dumps(_SCHEMA)) for name in NAMES])
"""The tools whose calls the probes contain."""

_TOOL_DICTS = [
    {
        "type": "function",
        "function": {"name": name, "description": "A function.", "parameters": _SCHEMA},
    }
    for name in NAMES
]

_THOUGHT_KEYS = ("reasoning_content", "thinking", "reasoning")


class Probe:
    """Renders short conversations with one template. A rendering that fails is None."""

    def __init__(self, render: Render) -> None:
        self._render = render
        self._until = time.process_time() + MAX_ANALYSIS_S
        self._arguments_are_text = False

    def prompt(self, *, thinking: bool = True, generate: bool = True) -> str | None:
        """Return what follows the user's text in a prompt, with or without what begins a turn."""
        return self._turn(None, thinking=thinking, generate=generate)

    def answer(self, *, content: str = CONTENT, thought: bool = False) -> str | None:
        """Return what follows the user's text if the model answered with this content."""
        given: dict[str, Any] = {"role": "assistant", "content": content}
        return self._with_thought(given) if thought else self._turn(given)

    def calls(self, count: int, *, content: str = "", thought: bool = False) -> str | None:
        """Return what follows the user's text if the model answered with calls."""
        for as_text in (self._arguments_are_text, not self._arguments_are_text):
            given = {
                "role": "assistant",
                "content": content,
                "tool_calls": _calls(count, as_text=as_text),
            }
            turn = self._with_thought(given) if thought else self._turn(given, tools=True)
            if turn is not None and any(text in turn for text in (*NAMES, TEXTS[0])):
                self._arguments_are_text = as_text
                return turn
        return None

    def tools(self) -> str:
        """Return the whole prompt of a request with tools, or "" if the template fails."""
        values = self._values([{"role": "user", "content": USER}], tools=True, generate=True)
        return self._text(values) or ""

    def built_in_call(self) -> str | None:
        """Return the turn of a call of a tool that the template is told to be built in."""
        given = {"role": "assistant", "content": "", "tool_calls": _calls(1, as_text=False)}
        return self._turn(given, tools=True, builtin_tools=[NAMES[0]])

    def _with_thought(self, given: dict[str, Any]) -> str | None:
        is_call = "tool_calls" in given
        for keys in (_THOUGHT_KEYS, *((key,) for key in _THOUGHT_KEYS)):
            turn = self._turn({**given, **dict.fromkeys(keys, THOUGHT)}, tools=is_call)
            if turn is not None and turn.count(THOUGHT) == 1:
                return turn
        return None

    def _turn(
        self,
        message: dict[str, Any] | None,
        *,
        thinking: bool = True,
        tools: bool = False,
        generate: bool = False,
        **more: Any,
    ) -> str | None:
        messages = [{"role": "user", "content": USER}, *([message] if message else [])]
        for with_tools in {tools: None, False: None}:
            values = self._values(messages, tools=with_tools, generate=generate)
            text = self._text({**values, "enable_thinking": thinking, "thinking": thinking, **more})
            if text is not None and USER in text:
                return text[text.rindex(USER) + len(USER) :]
        return None

    @staticmethod
    def _values(messages: list[dict[str, Any]], *, tools: bool, generate: bool) -> dict[str, Any]:
        values: dict[str, Any] = {"messages": messages, "add_generation_prompt": generate}
        if tools:
            # Copies, because a template may change what it gets.
            values["tools"] = json.loads(json.dumps(_TOOL_DICTS))
        return {**values, "functions": json.dumps(_TOOL_DICTS), "datetime": "today"}

    def _text(self, values: Mapping[str, Any]) -> str | None:
        if time.process_time() > self._until:
            return None
        try:
            return self._render(values)
        except InvalidField:
            return None


def _calls(count: int, *, as_text: bool) -> list[dict[str, Any]]:
    return [
        {
            "id": call_id,
            "type": "function",
            "function": {
                "name": name,
                "arguments": json.dumps(arguments) if as_text else dict(arguments),
            },
        }
        for call_id, name, arguments in list(zip(IDS, NAMES, ARGUMENTS, strict=True))[:count]
    ]
