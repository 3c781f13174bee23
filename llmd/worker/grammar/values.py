"""Write the rules of arguments that are pairs of keys and values in one pair of brackets."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from llmd.worker.grammar.rules import Rules, literal
from llmd.worker.syntax import Calls
from llmd.worker.tool_schema import properties_of, required_of, resolved, types_of

_KEY = "/[A-Za-z_][A-Za-z0-9_]*/"

_MAX_ITEMS = 100
"""A list of more items is not bound in their number."""

_MAX_DEPTH = 8
"""Deeper values are not bound by their schema."""


def choices_of(schema: dict[str, Any]) -> list[Any] | None:
    """Return the only values that a schema allows, if it lists them."""
    if "const" in schema:
        return [schema["const"]]
    choices = schema.get("enum")
    return choices if isinstance(choices, list) else None


class PairRules:
    """The rules of pairs, such as ``a: 1, b: 'x'``."""

    def __init__(self, rules: Rules, calls: Calls) -> None:
        self._rules = rules
        self._calls = calls
        self._comma = literal(calls.argument_separator)
        self._is_python = len(calls.quote) == 1
        self._root: dict[str, Any] = {}

    def arguments(self, name: str, schema: dict[str, Any]) -> str:
        """Return an expression for all arguments with the brackets around them."""
        calls = self._calls
        self._root = schema
        if properties_of(schema):
            inside = self._members(name, schema, 0, top=True)
        elif isinstance(schema.get("properties"), dict):
            inside = ""
        else:
            pair = f"KEY {literal(calls.key_end)} {self._any()}"
            self._rules.add("KEY", _KEY)
            inside = f"({pair} ({self._comma} {pair})*)?"
        start, end = self._rules.marker(calls.arguments_start), literal(calls.arguments_end)
        return f"{start} {inside} {end}"

    def _members(self, name: str, schema: dict[str, Any], depth: int, *, top: bool) -> str:
        """Return an expression for the members of an object, in the order of its schema."""
        required = required_of(schema)
        key_end = self._calls.key_end if top else ": " if self._is_python else ":"
        pairs: list[tuple[str, bool]] = []
        for number, (key, given) in enumerate(properties_of(schema).items()):
            value = self._value(f"{name}_{number}", given, depth + 1)
            written = key if top or not self._is_python else f"'{key}'"
            pairs.append((f"{literal(f'{written}{key_end}')} {value}", key in required))
        # What may follow from a member on: first behind another member, then as the first.
        after, first = "", ""
        may_be_empty = True
        for number in range(len(pairs) - 1, -1, -1):
            pair, is_required = pairs[number]
            begin = f"{pair} {after}".strip()
            if is_required:
                first, may_be_empty = begin, False
            else:
                first = f"({begin} | {first})" if first else begin
            follow = f"{self._comma} {pair} {after}".strip()
            if not is_required:
                follow = f"({self._comma} {pair})? {after}".strip()
            after = self._rules.add(f"{name}_after_{number}", follow)
        return f"({first})?" if may_be_empty and first else first

    def _value(self, name: str, schema: Any, depth: int) -> str:
        """Return an expression for a value of a schema.

        Enforced are types, properties, items and their number, and lists of choices.
        """
        schema = resolved(schema, self._root)
        if not isinstance(schema, dict) or depth > _MAX_DEPTH:
            return self._any()
        choices = choices_of(schema)
        if choices is not None and all(not isinstance(item, dict | list) for item in choices):
            return self._rules.add(name, " | ".join(self._written(item) for item in choices))
        kinds: dict[str, Callable[[], str]] = {
            "string": self._string,
            "integer": lambda: self._rules.json("pair_integer", {"type": "integer"}),
            "number": lambda: self._rules.json("pair_number", {"type": "number"}),
            "boolean": lambda: self._rules.add("pair_boolean", self._words(True, False)),
            "null": lambda: self._rules.add("pair_null", self._words(None)),
            "array": lambda: self._list(name, schema, depth),
            "object": lambda: self._object(name, schema, depth),
        }
        types = sorted(types_of(schema) & kinds.keys())
        if not types:
            return self._any()
        if types in (["integer"], ["number"]):
            return self._rules.json(name, schema)
        return self._rules.add(name, " | ".join(kinds[kind]() for kind in types))

    def _object(self, name: str, schema: dict[str, Any], depth: int) -> str:
        if not properties_of(schema):
            return self._any_object()
        return f'"{{" {self._members(name, schema, depth, top=False)} "}}"'

    def _list(self, name: str, schema: dict[str, Any], depth: int) -> str:
        item = self._value(f"{name}_item", schema.get("items"), depth + 1)
        most = schema.get("maxItems")
        if not isinstance(most, int) or not 0 < most <= _MAX_ITEMS:
            return f'"[" ({item} ({self._comma} {item})*)? "]"'
        return f'"[" ({item} ({self._comma} {item}){{0,{most - 1}}})? "]"'

    def _any(self) -> str:
        """Return the name of a rule for any value."""
        rules = self._rules
        number = rules.json("pair_number", {"type": "number"})
        if self._is_python:
            pair = f'{self._string()} ": " pair_any'
        else:
            rules.add("KEY", _KEY)
            pair = 'KEY ":" pair_any'
        rules.add("pair_object", f'"{{" ({pair} ({self._comma} {pair})*)? "}}"')
        rules.add("pair_list", f'"[" (pair_any ({self._comma} pair_any)*)? "]"')
        scalar = f"{self._string()} | {self._words(True, False, None)} | {number}"
        return rules.add("pair_any", f"{scalar} | pair_list | pair_object")

    def _any_object(self) -> str:
        """Return the name of a rule for any object."""
        self._any()
        return "pair_object"

    def _string(self) -> str:
        """Return the name of a rule for any string with its quotes."""
        quote = self._calls.quote
        if self._is_python:
            return self._rules.add(
                "PAIR_STRING", rf"/{quote}([^{quote}\\\n]|\\[{quote}\\nt])*{quote}/"
            )
        inner = self._rules.until("rest_of_string", quote)
        return self._rules.add("pair_string", f"{self._rules.marker(quote)} {inner}")

    def _written(self, value: Any) -> str:
        """Return an expression for exactly this value."""
        if isinstance(value, str):
            text = value
            if self._is_python:
                text = json.dumps(value, ensure_ascii=False)[1:-1].replace("'", "\\'")
            return self._rules.marker(f"{self._calls.quote}{text}{self._calls.quote}")
        return self._words(value)

    def _words(self, *values: Any) -> str:
        """Return an expression for one of several constants and numbers."""
        return " | ".join(literal(self._word(value)) for value in values)

    def _word(self, value: Any) -> str:
        is_constant = value is None or isinstance(value, bool)
        return repr(value) if self._is_python and is_constant else json.dumps(value)
