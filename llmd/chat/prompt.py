"""Build the prompt of an answer from a profile, the old turns and the user's text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from llmd.engine.protocol import ChatPrompt, Message, Part, Prompt, TextPrompt
from llmd.store.profiles import Profile

_PLACEHOLDER = re.compile(r"(\{chat_history\}|\{input\})")

_LABEL = re.compile(r"\w\w.*[:>\])]$")
"""A label, not a dash, a quotation mark or a word that may stand in any answer."""

MAX_STOP_CHARS = 128


class OldTurn(Protocol):
    """A turn of the history."""

    @property
    def user(self) -> str: ...  # noqa: D102
    @property
    def assistant(self) -> str: ...  # noqa: D102


def build(profile: Profile, turns: Sequence[OldTurn], text: str) -> Prompt:
    """Return the prompt: by the profile's template, else for the model's own chat template."""
    if profile.template is None:
        return ChatPrompt(_messages(profile, turns, text))
    return TextPrompt(_parts(profile, profile.template, turns, text))


def takes_history(profile: Profile) -> bool:
    """Tell whether old turns have a place in the prompt."""
    return profile.template is None or "{chat_history}" in profile.template


def default_stop(profile: Profile) -> list[str]:
    """Return where an answer ends when the profile names no stop strings.

    The model's own chat template has its end token. With a profile's template, the model would
    go on to play the user: it stops at the label before ``{input}`` and at the user's label.
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
            Message(role="assistant", content=turn.assistant, turn=index),
        ]
    return [*messages, Message(role="user", content=text)]


def _parts(profile: Profile, template: str, turns: Sequence[OldTurn], text: str) -> list[Part]:
    """Cut the template at its placeholders, once: what is put in is never looked at again."""
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
    """Return a part a turn: two lines, each but the last turn's with a line end after them."""
    return [
        Part(
            text=f"{profile.human_label}: {turn.user}\n{profile.ai_label}: {turn.assistant}"
            + ("\n" if index < len(turns) - 1 else ""),
            turn=index,
        )
        for index, turn in enumerate(turns)
    ]
