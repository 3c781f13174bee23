"""Collect the rules of one grammar in llguidance's language, one line each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from llmd.worker.syntax import SLOT, pieces_of

JSON_OPTIONS: Any = {
    # One line, because small models lose track when white space is free.
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    # Refuse a keyword that cannot be enforced instead of ignoring it.
    "lenient": False,
    "coerce_one_of": False,
}
"""How llguidance writes JSON. These options replace those in a client's schema."""

_TERMINALS = [
    r"TEXT: /(.|\n)+/",
    r"ANY: /(.|\n)*/",
    r"NAME: /[^<>\n]+/",
    r"SLOT: /[A-Za-z0-9_]+/",
]


class Rules:
    """The rules of a grammar. `special` are the ids of special tokens by spelling."""

    def __init__(self, special: Mapping[str, int]) -> None:
        self._special = special
        self._words = re.compile(
            "|".join(re.escape(text) for text in sorted(special, key=len, reverse=True) if text)
            or r"(?!)"
        )
        self._rules = ["%llguidance {}", *_TERMINALS]

    def text(self) -> str:
        """Return the grammar."""
        return "\n".join([*self._rules, ""])

    def add(self, name: str, body: str) -> str:
        """Add a rule, unless there is one like it, and return its name."""
        rule = f"{name}: {body or literal('')}"
        if rule not in self._rules:
            self._rules.append(rule)
        return name.partition("[")[0]

    def json(self, name: str, schema: dict[str, Any]) -> str:
        """Add a rule for a JSON value, and return its name."""
        options = {"x-guidance": JSON_OPTIONS}
        return self.add(name, f"%json {json.dumps({**schema, **options}, ensure_ascii=False)}")

    def specials_in(self, text: str) -> list[str]:
        """Return the special tokens in a marker, in their order."""
        return self._words.findall(text)

    def marker(self, text: str) -> str:
        """Return an expression for a marker, which may contain special tokens and slots."""
        parts: list[str] = []
        for piece in re.split(f"({self._words.pattern}|{SLOT})", text):
            if piece == SLOT:
                parts.append("SLOT")
            elif piece in self._special:
                parts.append(f"<[{self._special[piece]}]>")
            elif piece:
                parts.append(literal(piece))
        return " ".join(parts)

    def split_trigger(self, head: str) -> tuple[str, str]:
        """Split the marker before a call into its first word and the rest."""
        pieces = pieces_of(head)
        if not pieces:
            return "", ""
        trigger = pieces[0]
        match = self._words.match(trigger)
        if match is not None:
            trigger = match[0]
        elif (match := self._words.search(trigger)) is not None:
            trigger = trigger[: match.start()]
        return trigger, head[len(trigger) :]

    def free_text(self, excluded: list[str] | None) -> str:
        """Return an expression for pieces of text that each end with a special token.

        The special tokens in `excluded` do not match. With None, none matches and the expression
        is empty.
        """
        if excluded is None:
            return ""
        ids = {token for spelling, token in self._special.items() if spelling not in excluded}
        return f"(TEXT? <[{_ranges(ids)}]>)*" if ids else ""

    def text_up_to(self, name: str, marker: str, *, excluded: list[str] | None) -> str:
        """Return an expression for text up to and including a marker."""
        return f"{self.free_text(excluded)} {self.until(name, marker)}"

    def until(self, name: str, marker: str) -> str:
        """Return an expression for text without special tokens up to and including a marker."""
        match = self._words.search(marker)
        if match is None:
            return self.add(f"{name}[lazy]", f"ANY {literal(marker)}")
        if match.start() == 0:
            return f"TEXT? {self.marker(marker)}"
        before = re.escape(marker[: match.start()]).replace("/", r"\/")
        terminal = self.add(name.upper(), rf"/(.|\n)*{before}/")
        return f"{terminal} {self.marker(marker[match.start() :])}"


def literal(text: str) -> str:
    """Return a text in the grammar's notation."""
    return json.dumps(text, ensure_ascii=False)


def _ranges(ids: Iterable[int]) -> str:
    """Return token ids in the grammar's notation, such as ``1,4-6``."""
    runs: list[list[int]] = []
    for token in sorted(ids):
        if runs and runs[-1][1] == token - 1:
            runs[-1][1] = token
        else:
            runs.append([token, token])
    return ",".join(f"{first}-{last}" if first < last else f"{first}" for first, last in runs)
