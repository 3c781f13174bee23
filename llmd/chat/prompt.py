"""Build prompts from a profile, old turns or messages, and the user's text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from llmd.engine.protocol import ChatPrompt, Ending, Message, Part, Prompt, TextPrompt, Tools
from llmd.errors import InvalidField
from llmd.store.profiles import Profile

_PLACEHOLDER = re.compile(r"(\{chat_history\}|\{input\})")

_LABEL = re.compile(r"\w\w.*[:>\])]$")
"""A label such as ``PROMPT:``. A dash, a quotation mark or a mere word may be in any answer."""

MAX_STOP_CHARS = 128
"""The maximum length of a stop string that is made from a label."""


class OldTurn(Protocol):
    """An earlier turn of the session."""

    @property
    def user(self) -> str: ...  # noqa: D102
    @property
    def assistant(self) -> str: ...  # noqa: D102
    @property
    def reasoning(self) -> str: ...  # noqa: D102


def build(profile: Profile, turns: Sequence[OldTurn], text: str) -> Prompt:
    """Return a prompt made with the profile's template, or else for the model's chat template."""
    if profile.template is None:
        return ChatPrompt(_messages(profile, turns, text))
    return TextPrompt(_parts(profile, profile.template, turns, text))


def build_messages(
    profile: Profile,
    messages: Sequence[Message],
    tools: Tools | None,
    variables: str = "{}",
    ending: Ending = "answer",
) -> Prompt:
    """Return the prompt of a conversation that the client sends as a whole.

    The profile's system text is used unless the client sends one. In a profile's template, the
    last message is the input and the earlier ones are the history. Such a template cannot show
    tools to the model: raise `InvalidField` if they are required. An answer that is continued
    follows the template's text.
    """
    messages = list(messages)
    if profile.template is None:
        if profile.system and all(message.role != "system" for message in messages):
            messages.insert(0, Message(role="system", content=profile.system))
        return ChatPrompt(messages, tools, variables, ending)
    if tools is not None and tools.required:
        raise InvalidField(
            "a profile with a template cannot use tools: use a profile without a template",
            param="tool_choice",
        )
    if ending == "reasoning":
        raise InvalidField(
            "a profile with a template cannot continue a thought: use a profile without a template",
            param="continue_final_message",
        )
    begun = [messages.pop()] if ending == "content" and len(messages) > 1 else []
    history = "\n".join(_line(profile, message) for message in messages[:-1])
    parts: list[Part] = []
    has_history = "{chat_history}" in profile.template
    for piece in _PLACEHOLDER.split(profile.template):
        if piece == "{input}":
            before = "" if has_history or not history else f"{history}\n"
            parts.append(Part(text=before + messages[-1].content))
        elif piece == "{chat_history}":
            parts.append(Part(text=history))
        elif piece:
            parts.append(Part(text=piece, literal=True))
    parts += [Part(text=message.content) for message in begun]
    return TextPrompt(parts)


def _line(profile: Profile, message: Message) -> str:
    if message.role == "system":
        return message.content
    label = profile.ai_label if message.role == "assistant" else profile.human_label
    return f"{label}: {message.content}"


def takes_history(profile: Profile) -> bool:
    """Return whether the prompt includes old turns."""
    return profile.template is None or "{chat_history}" in profile.template


def num_kept(num_turns: int, max_turns: int) -> int:
    """Return how many of the last turns to keep in the prompt: at most `max_turns`.

    Old turns are left out in blocks of half of `max_turns`, not one by one. For several turns the
    prompt then begins as before, so that the engine can reuse its KV state.
    """
    excess = num_turns - max_turns
    if excess <= 0:
        return num_turns
    block = max(1, -(-max_turns // 2))
    num_dropped = -(-excess // block) * block
    return max(0, num_turns - num_dropped)


def default_stop(profile: Profile) -> list[str]:
    """Return the stop strings of a profile that sets none.

    With the model's chat template, an answer ends with a token, and no stop string is needed. With
    a profile's template, the model would go on and write the next turn of the user. Therefore an
    answer stops at the label before ``{input}`` and at the label of the user in the history.
    """
    if profile.template is None:
        return []
    before = profile.template.split("{input}")[0].split("{chat_history}")[-1]
    label = before.rpartition("\n")[2].strip()
    labels = [label[-MAX_STOP_CHARS:]] if _LABEL.search(label) else []
    return list(dict.fromkeys([*labels, f"{profile.human_label}:"]))


def _messages(profile: Profile, turns: Sequence[OldTurn], text: str) -> list[Message]:
    messages = [Message(role="system", content=profile.system)] if profile.system else []
    for index, turn in enumerate(turns):
        messages += [
            Message(role="user", content=turn.user, turn=index),
            Message(role="assistant", content=turn.assistant, reasoning=turn.reasoning, turn=index),
        ]
    return [*messages, Message(role="user", content=text)]


def _parts(profile: Profile, template: str, turns: Sequence[OldTurn], text: str) -> list[Part]:
    """Split the template at its placeholders. Placeholders in the inserted texts stay text."""
    parts: list[Part] = []
    for piece in _PLACEHOLDER.split(template):
        if piece == "{input}":
            parts.append(Part(text=text))
        elif piece == "{chat_history}":
            parts += _history(profile, turns)
        elif piece:
            parts.append(Part(text=piece, literal=True))
    return parts


def _history(profile: Profile, turns: Sequence[OldTurn]) -> list[Part]:
    """Return a part of two lines for each turn. Each part but the last ends with a line end."""
    return [
        Part(
            text=f"{profile.human_label}: {turn.user}\n{profile.ai_label}: {turn.assistant}"
            + ("\n" if index < len(turns) - 1 else ""),
            turn=index,
        )
        for index, turn in enumerate(turns)
    ]
