"""Convert arguments that a model wrote as text, elements or pairs into JSON."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from llmd.worker.syntax import SLOT, Calls
from llmd.worker.tool_schema import properties_of, type_of, types_of

_MAX_DEPTH = 64
_CDATA = re.compile(r"\s*<!\[CDATA\[(.*)\]\]>\s*", re.DOTALL)
_WORD = re.compile(r"[^\s,:=(){}\[\]]+")
_SPACE = re.compile(r"\s*")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0", "\n": ""}
_CONSTANTS = {"True": True, "False": False, "None": None}
_PAIRED = {"{": "}", "[": "]", "(": ")"}


class NotACall(Exception):
    """The text read is not a call of one of the request's tools."""


def fail() -> NoReturn:
    """Raise `NotACall`."""
    raise NotACall


def quoted(text: str) -> str:
    """Return a text as a JSON string."""
    return json.dumps(text, ensure_ascii=False)


def joined(arguments: dict[str, str]) -> str:
    """Return a JSON object with members whose values are JSON already."""
    return f"{{{', '.join(f'{quoted(key)}: {value}' for key, value in arguments.items())}}}"


def value_of(text: str, schema: Any) -> str:
    """Return a value that was written as plain text as JSON, as its schema declares it."""
    types = types_of(schema)
    if match := _CDATA.fullmatch(text):
        return quoted(match[1])
    try:
        value = json.loads(text, parse_constant=lambda _: fail())
    except (ValueError, RecursionError, NotACall):
        word = text.strip()
        if word in _CONSTANTS and types and "string" not in types:
            return json.dumps(_CONSTANTS[word])
        return quoted(text)
    if "string" not in types:
        return text.strip()
    admits = type_of(value) in types or (isinstance(value, int) and "number" in types)
    return text.strip() if admits and not isinstance(value, str) else quoted(text)


def value_of_elements(text: str, schema: Any, calls: Calls, depth: int = 0) -> str:
    """Return a value as JSON, whose objects and lists are written as elements."""
    types = types_of(schema)
    is_nested = text.lstrip().startswith(calls.argument_start)
    if not is_nested or (types and not types & {"object", "array"}):
        return value_of(text, schema)
    try:
        elements = _elements(text, calls)
    except NotACall:
        return value_of(text, schema)
    if depth > _MAX_DEPTH:
        fail()
    inner = schema if isinstance(schema, dict) else {}
    if "array" in types and "object" not in types:
        is_list = True
    elif "object" in types and "array" not in types:
        is_list = False
    else:
        is_list = all(key == "item" for key, _ in elements)
    if is_list:
        items = _part_of(inner, "items")
        values = [value_of_elements(value, items, calls, depth + 1) for _, value in elements]
        return f"[{', '.join(values)}]"
    properties = properties_of(_part_of(inner, "properties", whole=True))
    return joined(
        {
            key: value_of_elements(value, properties.get(key), calls, depth + 1)
            for key, value in elements
        }
    )


def _part_of(schema: dict[str, Any], word: str, *, whole: bool = False) -> Any:
    """Return what a schema, or the first of its alternatives that has it, says under a word."""
    for choice in [schema, *schema.get("anyOf", []), *schema.get("oneOf", [])]:
        if isinstance(choice, dict) and word in choice:
            return choice if whole else choice[word]
    return {}


def _elements(text: str, calls: Calls) -> list[tuple[str, str]]:
    """Return (key, text) of each element of a text that consists of elements."""
    found: list[tuple[str, str]] = []
    at = _skip_space(text, 0)
    while at < len(text):
        if not text.startswith(calls.argument_start, at):
            fail()
        at += len(calls.argument_start)
        end = text.find(calls.key_end, at)
        if end < 0:
            fail()
        key = text[at:end]
        at = end + len(calls.key_end)
        end = _end_of_element(text, at, key, calls)
        found.append((key, text[at:end]))
        at = _skip_space(text, end + len(calls.value_end.replace(SLOT, key)))
    return found


def _end_of_element(text: str, at: int, key: str, calls: Calls) -> int:
    """Return where the element that begins before `at` ends, before its end marker."""
    opening = f"{calls.argument_start}{key}{calls.key_end}"
    closing = calls.value_end.replace(SLOT, key)
    depth = 1
    while True:
        end = text.find(closing, at)
        if end < 0:
            fail()
        depth += text.count(opening, at, end) - 1
        if depth == 0:
            return end
        at = end + len(closing)


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


class PairReader:
    """Reads the text of pairs, such as ``a: 1, b: 'x'``, into a value."""

    def __init__(self, text: str, quote: str) -> None:
        self._text = text
        self._at = 0
        self._quotes = quotes_of(quote)

    def pairs(self, end: str = "") -> dict[str, Any]:
        """Return all pairs up to the closing bracket, or up to the end of the text."""
        found: dict[str, Any] = {}
        while not self._closes(end):
            key = self._value(is_key=True)
            self._skip()
            if self._text[self._at : self._at + 1] not in {":", "="}:
                fail()
            self._at += 1
            found[str(key)] = self._value()
            self._comma(end)
        return found

    def _closes(self, end: str) -> bool:
        self._skip()
        if not end:
            return self._at >= len(self._text)
        if self._text.startswith(end, self._at):
            self._at += len(end)
            return True
        if self._at >= len(self._text):
            fail()
        return False

    def _comma(self, end: str) -> None:
        self._skip()
        if self._text[self._at : self._at + 1] == ",":
            self._at += 1
        elif self._text[self._at : self._at + 1] != end:
            fail()

    def _value(self, *, is_key: bool = False) -> Any:
        self._skip()
        for quote in self._quotes:
            if self._text.startswith(quote, self._at):
                return self._string(quote)
        first = self._text[self._at : self._at + 1]
        if first == "{" and not is_key:
            self._at += 1
            return self.pairs("}")
        if first and first in "[(" and not is_key:
            self._at += 1
            return self._items(_PAIRED[first])
        match = _WORD.match(self._text, self._at)
        if match is None:
            fail()
        self._at = match.end()
        return match[0] if is_key else _scalar(match[0])

    def _items(self, end: str) -> list[Any]:
        found: list[Any] = []
        while not self._closes(end):
            found.append(self._value())
            self._comma(end)
        return found

    def _string(self, quote: str) -> str:
        self._at += len(quote)
        if len(quote) > 1:
            end = self._text.find(quote, self._at)
            if end < 0:
                fail()
            text = self._text[self._at : end]
            self._at = end + len(quote)
            return text
        found: list[str] = []
        while (char := self._text[self._at : self._at + 1]) != quote:
            if not char:
                fail()
            self._at += 1
            found.append(self._escape() if char == "\\" else char)
        self._at += 1
        return "".join(found)

    def _escape(self) -> str:
        char = self._text[self._at : self._at + 1]
        self._at += 1
        size = {"x": 2, "u": 4, "U": 8}.get(char, 0)
        if size:
            digits = self._text[self._at : self._at + size]
            try:
                code = chr(int(digits, 16))
            except (ValueError, OverflowError):
                fail()
            self._at += size
            if 0xD800 <= ord(code) < 0xDC00 and self._text.startswith("\\u", self._at):
                digits = self._text[self._at + 2 : self._at + 6]
                pair = f'"\\u{ord(code):04x}\\u{digits}"'
                try:
                    code = str(json.loads(pair))
                except ValueError:
                    fail()
                self._at += 6
            return code
        return _ESCAPES.get(char, char)

    def _skip(self) -> None:
        self._at = _skip_space(self._text, self._at)


def quotes_of(quote: str) -> list[str]:
    """Return the quotes that may stand around a string, if a template writes this one."""
    return [quote] if len(quote) > 1 else ["'", '"']


def _scalar(word: str) -> Any:
    """Return the value of a word: a number, a constant, or else the word as a text."""
    if word in _CONSTANTS:
        return _CONSTANTS[word]
    try:
        return json.loads(word, parse_constant=lambda _: fail())
    except (ValueError, NotACall):
        return word
