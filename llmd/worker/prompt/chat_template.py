"""Turn the messages of a chat into a prompt, by the chat template of the model file."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from llmd.engine.protocol import ChatPrompt, Ending, Message, Part, Tools
from llmd.errors import InvalidField
from llmd.worker.prompt.capabilities import Capabilities, find_capabilities
from llmd.worker.prompt.forms import fit_messages, message_dicts, tool_values
from llmd.worker.prompt.marks import Marker, defuse_all, defuse_calls
from llmd.worker.prompt.sandbox import MAX_RENDER_S, Template, TemplateRefusal
from llmd.worker.prompt.tool_prompt import plain_messages

_RESERVED_NAMES = {"messages", "tools", "add_generation_prompt", "bos_token", "eos_token"}
"""Names of a template's values that a request cannot set."""

_THINKING = "enable_thinking"

_MARKER = re.compile(r"<[^<>]+>|\[[^\[\]]+\]")
"""A marker that opens a thought. An empty thought has two."""


class ChatTemplate:
    """A compiled chat template. Use it in the main thread only: its time limit is a signal."""

    def __init__(self, source: str, *, bos: str, eos: str) -> None:
        """Compile a template and find its capabilities. Raise `InvalidField` if it is unusable."""
        self._template = Template(source, bos=bos, eos=eos)
        self._defaults: dict[str, Any] = {}
        self._marker = Marker()
        self.capabilities = find_capabilities(self._probe, self._template.variables)
        self._defaults = self._find_defaults()

    @property
    def knows_tools(self) -> bool:
        """Whether the template writes tools, calls and results itself."""
        return self.capabilities.has_tools

    def describe_tools_as_text(self) -> None:
        """Write tools, calls and results as llmd's own text from now on.

        This is for a template whose calls cannot be read from an answer.
        """
        self.capabilities = msgspec.structs.replace(
            self.capabilities, tools_variable="", needs_tools=False
        )

    def probe(self, values: Mapping[str, Any]) -> str:
        """Return the text for these values alone. Raise `InvalidField` as `render` does."""
        return self._template.render({**self._defaults, **values})

    def render(self, prompt: ChatPrompt, special: list[str]) -> list[Part]:
        """Return the prompt in parts: literal text of the template, and text of the messages.

        `special` are the spellings of special tokens. They are broken up in messages that the
        template changes so much that their text cannot be separated from its own. Raise
        `InvalidField` if the template refuses the messages, runs too long or writes too much.
        """
        can = self.capabilities
        values = defuse_all(_variables(prompt.variables), special)
        values.update(defuse_all(tool_values(prompt.tools, can), special))
        # Names, ids and arguments are not marked, and could spell a special token.
        messages = [
            defuse_calls(message, special) for message in self._fitted(prompt.messages, prompt)
        ]
        try:
            return self._marker.split(
                lambda marked: self._text(can, marked, values, prompt.ending), messages, special
            )
        except TemplateRefusal as error:
            raise self._explained(error, prompt, values) from None

    def _fitted(self, messages: list[Message], prompt: ChatPrompt) -> list[Message]:
        """Return messages in the form that the template takes."""
        if not self.knows_tools:
            messages = plain_messages(messages, prompt.tools)
        return fit_messages(messages, self.capabilities)

    def _text(
        self, can: Capabilities, messages: list[Message], values: dict[str, Any], ending: Ending
    ) -> str:
        """Return the text of one rendering."""
        values = {**self._defaults, **values}
        if ending in {"content", "reasoning"}:
            return self._open_text(can, messages, values, ending)
        values["add_generation_prompt"] = ending == "answer"
        return self._template.render({**values, "messages": message_dicts(messages, can)})

    def _open_text(
        self, can: Capabilities, messages: list[Message], values: dict[str, Any], field: str
    ) -> str:
        """Return a prompt that ends within its last message, with the text of a field.

        The template writes the message with a mark behind the text, and its prompt is cut there.
        """
        *earlier, last = messages
        mark = secrets.token_hex(8)
        text: str = getattr(last, field)
        values = {**values, "add_generation_prompt": False}
        if field == "reasoning":
            values.setdefault(_THINKING, True)
        # Some templates show a thought only beside a content, and some only without one.
        others = [{}] if field == "content" else [{"content": mark[::-1]}, {"content": ""}]
        for other in others:
            marked = msgspec.structs.replace(last, **other, **{field: f"{text}{mark}"})
            dicts = message_dicts([*earlier, marked], can)
            before, found, _ = self._template.render({**values, "messages": dicts}).rpartition(mark)
            if found:
                return before
        values["add_generation_prompt"] = True
        return self._continued(can, earlier, values, field) + text

    def _continued(
        self, can: Capabilities, earlier: list[Message], values: dict[str, Any], field: str
    ) -> str:
        """Return the prompt of a new answer, if a text can follow that continues the field."""
        prompt = self._template.render({**values, "messages": message_dicts(earlier, can)})
        if self._opens_thought(values) != (field == "reasoning"):
            raise InvalidField(
                "the model's chat template does not show the "
                f"{'thought' if field == 'reasoning' else 'text'} of a last message, "
                "so it cannot be continued",
                param="continue_final_message",
            )
        return prompt

    def _opens_thought(self, values: dict[str, Any]) -> bool:
        """Return whether the template begins a new answer with one marker more than an old one."""
        user, answer = Message(role="user", content="?"), secrets.token_hex(8)
        old = [user, Message(role="assistant", content=answer)]
        can = self.capabilities
        shown = self._template.render({**values, "messages": message_dicts(old, can)})
        new = self._template.render({**values, "messages": message_dicts([user], can)})
        opening = shown.partition(answer)[0]
        return new.startswith(opening.rstrip()) and bool(
            _MARKER.fullmatch(new[len(opening.rstrip()) :].strip())
        )

    def _explained(
        self, error: TemplateRefusal, prompt: ChatPrompt, values: dict[str, Any]
    ) -> InvalidField:
        """Return an error that names the message which the template refuses."""
        given = prompt.messages
        ends_at = time.thread_time() + MAX_RENDER_S
        for number in range(1, len(given) + 1):
            try:
                fitted = self._fitted(given[:number], prompt)
                self._text(self.capabilities, fitted, values, "nothing")
            except InvalidField:
                break
            if time.thread_time() > ends_at:
                return InvalidField(error.message, param="messages")
        where = f"message {number} of {len(given)} ({given[number - 1].role})"
        return InvalidField(f"{error.message} (at {where})", param="messages")

    def _probe(
        self, can: Capabilities, messages: list[Message], tools: Tools | None, ending: Ending
    ) -> str:
        return self._text(can, messages, tool_values(tools, can), ending)

    def _find_defaults(self) -> dict[str, Any]:
        """Return the variables that the template needs, unless a request gives them.

        Some templates take for granted that `enable_thinking` is given, and close the thought of
        every answer if it is not. llama.cpp's server gives true by default.
        """
        can = self.capabilities
        user = message_dicts([Message(role="user", content="?")], can)
        values = {**tool_values(None, can), "messages": user, "add_generation_prompt": True}
        if not self._template.needs(_THINKING, values):
            return {}
        unset = self._template.render(values)
        thinking = self._template.render({**values, _THINKING: True})
        closes = unset.startswith(thinking) and unset != thinking
        return {_THINKING: True} if closes else {}


def _variables(text: str) -> dict[str, Any]:
    """Return the values that a request adds for the template, without reserved names."""
    values = json.loads(text)
    if "reasoning_effort" in values:
        # Some templates call it so; llama.cpp's server sets both too.
        values.setdefault("reasoning_strength", values["reasoning_effort"])
    return {name: value for name, value in values.items() if name not in _RESERVED_NAMES}
