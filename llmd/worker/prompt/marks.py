"""Tell the text of messages apart from a template's own text in a rendered prompt.

Only the template's own text may contain special tokens. The texts of messages are rendered between
marks that nobody can guess, and are cut out at the marks afterwards.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import msgspec

from llmd.engine.protocol import Message, Part
from llmd.errors import InvalidField

Render = Callable[[list[Message]], str]
"""Return the prompt of messages, as text."""


_STRIPS = (
    frozenset[str](),
    frozenset({"content", "reasoning"}),
    frozenset({"reasoning"}),
    frozenset({"content"}),
)
"""Fields of messages that a template may strip, in the order in which they are tried."""

_UNMARKED = (
    frozenset[str](),
    frozenset({"tool"}),
    frozenset({"assistant"}),
    frozenset({"assistant", "tool"}),
)
"""Roles whose texts a template may change: it writes results as JSON, or cuts old thoughts out.

Their texts get no marks, and their special tokens are broken up.
"""


class Marker:
    """Split the prompts of one template."""

    def __init__(self) -> None:
        self._strips = list(_STRIPS)

    def split(self, render: Render, messages: list[Message], special: list[str]) -> list[Part]:
        """Return the prompt in parts: literal text of the template, and text of the messages.

        `special` are the spellings of special tokens. They are broken up in texts that the
        template changes so much that they cannot be separated from its own.
        """
        plain = render(messages)
        roles = {message.role for message in messages}
        padded = {
            field
            for message in messages
            for field, text in (("content", message.content), ("reasoning", message.reasoning))
            if text != text.strip()
        }
        for unmarked in _UNMARKED:
            if not unmarked <= roles:
                continue
            tried: set[frozenset[str]] = set()
            for strips in list(self._strips):
                if strips & padded in tried:
                    continue
                tried.add(strips & padded)
                parts = _marked_parts(render, messages, special, strips, unmarked)
                if parts is not None and "".join(part.text for part in parts) == plain:
                    # The template strips the same fields the next time. That saves renderings,
                    # and changes no parts.
                    self._strips.remove(strips)
                    self._strips.insert(0, strips)
                    return parts
        defused = [
            _map_texts(message, lambda text, _field: defuse(text, special)) for message in messages
        ]
        return [Part(text=render(defused), literal=True)]


def _marked_parts(
    render: Render,
    messages: list[Message],
    special: list[str],
    strips: frozenset[str],
    unmarked: frozenset[str],
) -> list[Part] | None:
    """Return the parts of a prompt whose texts are marked, or None if marks were lost."""
    nonce = secrets.token_hex(8)
    originals: dict[str, str] = {}

    def mark(message: Message) -> Message:
        def marked(text: str, field: str) -> str:
            # A template may cut a piece out of a message and lose both marks. The defused piece
            # differs from the plain one, so the caller's comparison fails.
            original = text.strip() if field in strips else text
            defused = defuse(original, special)
            if message.role in unmarked or not original:
                return defused
            originals[defused] = original
            return f"<{nonce}[{defused}]{nonce}>"

        return _map_texts(message, marked)

    try:
        text = render([mark(message) for message in messages])
    except InvalidField:
        # The template reads a text, and refuses it with marks.
        return None
    return _split(text, nonce, originals)


def _map_texts(message: Message, change: Callable[[str, str], str]) -> Message:
    """Return a message with changed texts. Empty ones stay empty: templates check for that."""
    changed = {
        field: change(text, field)
        for field, text in (("content", message.content), ("reasoning", message.reasoning))
        if text
    }
    return msgspec.structs.replace(message, **changed)


def _split(text: str, nonce: str, originals: dict[str, str]) -> list[Part] | None:
    """Split a rendered text at its marks, and return the original texts between them.

    Return None if the template removed marks or changed the text between them.
    """
    begin, end = f"<{nonce}[", f"]{nonce}>"
    head, *rest = text.split(begin)
    if end in head:
        return None
    parts = [Part(text=head, literal=True)]
    for piece in rest:
        content, mark, after = piece.partition(end)
        if not mark or end in after or content not in originals:
            return None
        parts += [Part(text=originals[content]), Part(text=after, literal=True)]
    return [part for part in parts if part.text]


def defuse(text: str, special: list[str]) -> str:
    """Insert a zero-width space after the first character of each special token's spelling."""
    for spelling in special:
        text = text.replace(spelling, f"{spelling[:1]}\u200b{spelling[1:]}")
    return text


def defuse_all(value: Any, special: list[str]) -> Any:
    """Return a JSON value with special tokens broken up in all its strings."""
    if isinstance(value, str):
        return defuse(value, special)
    if isinstance(value, list):
        return [defuse_all(item, special) for item in value]
    if isinstance(value, dict):
        return {defuse(name, special): defuse_all(item, special) for name, item in value.items()}
    return value


def defuse_calls(message: Message, special: list[str]) -> Message:
    """Return the message with special tokens broken up in its calls, name and id."""
    if not message.calls and not message.name and not message.call_id:
        return message
    calls = [
        msgspec.structs.replace(
            call,
            name=defuse(call.name, special),
            arguments=defuse(call.arguments, special),
            id=defuse(call.id, special),
        )
        for call in message.calls
    ]
    return msgspec.structs.replace(
        message,
        calls=calls,
        name=defuse(message.name, special),
        call_id=defuse(message.call_id, special),
    )
