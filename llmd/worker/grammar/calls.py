"""Write the rules of tool calls, in the form that a syntax describes."""

from __future__ import annotations

import json
from typing import Any

from llmd.engine.protocol import Tool, Tools
from llmd.worker.grammar.rules import Rules, literal
from llmd.worker.grammar.values import PairRules, choices_of
from llmd.worker.syntax import SLOT, ArgumentForm, CallForm, Calls
from llmd.worker.tool_schema import closed, parameters_of, properties_of, required_of, types_of

_SUPPORTED_KEYWORDS = {"type", "properties", "required", "additionalProperties"}
"""Keywords of an object's schema that can be enforced for arguments between markers."""

_ANNOTATIONS = {"title", "description", "default", "examples", "$schema", "$id", "$comment"}
"""Keywords that do not restrict a value."""

_DEFINITION_KEYWORDS = {"$defs", "definitions"}
"""Keywords whose schemas are referred to by ``$ref``."""

_JSON_TYPES = {"integer": "number"}
"""Types that templates call by another name."""


class CallRules:
    """The rules of calls of a request's tools."""

    def __init__(self, rules: Rules, tools: Tools, calls: Calls, *, strict: bool) -> None:
        self._rules = rules
        self._tools = tools
        self._calls = calls
        self._strict = strict
        self._pairs = PairRules(rules, calls)

    def all(self, *, is_begun: bool) -> str:
        """Return an expression for calls. With `is_begun`, the first marker precedes it."""
        calls = self._calls
        inner = self._inner()
        if calls.is_list:
            begin = "" if is_begun else self._rules.marker(calls.section_start)
            more = f"({literal(calls.separator)} {inner})*" if self._tools.parallel else ""
            end = self._rules.marker(calls.section_end)
            return f'{begin} " "? "[" {inner} {more} "]" {end}'
        end = self._rules.marker(self._end)
        start = self._rules.marker(calls.start.lstrip())
        body = self._rules.add("body", f"{inner} {end}")
        section = "" if calls.is_bare else self._rules.marker(calls.section_start)
        first = body if is_begun else f"{section} {start} {body}"
        more = ""
        if self._tools.parallel and (calls.several or calls.is_bare or not calls.start.strip()):
            more = f"({self._rules.marker(calls.separator)} {start} {body})*"
        elif self._tools.parallel and calls.several:
            more = f"({start} {body})*"
        return f"{first} {more} {self._rules.marker(calls.section_end)}"

    def behind_name(self) -> str:
        """Return an expression for calls without a marker, behind the quote before the name."""
        tails = [
            self._rules.add(f"tail_{index}", self._object_tail(index, tool))
            for index, tool in enumerate(self._tools.tools)
        ]
        first = self._rules.add("tail", " | ".join(tails))
        if not self._tools.parallel:
            return first
        return f"{first} ({literal(self._calls.separator)} {self._inner()})*"

    def whole(self, index: int) -> str:
        """Return an expression for one call of one tool, with all its markers."""
        calls = self._calls
        inner = self._rules.add(f"inner_{index}", self._call(index, self._tools.tools[index]))
        head = self._rules.marker((calls.section_start + calls.start).lstrip())
        return f"{head} {inner} {self._rules.marker((self._end + calls.section_end).rstrip())}"

    def arguments(self, index: int) -> str:
        """Return an expression for the arguments of one tool as a JSON object."""
        schema = closed(parameters_of(self._tools.tools[index])) if self._strict else {}
        return self._rules.json(f"arguments_{index}", {**schema, "type": "object"})

    @property
    def _end(self) -> str:
        """The marker behind a call, without the line end that each argument has behind it."""
        separator = self._calls.argument_separator
        end = self._calls.end
        if self._calls.form is CallForm.NAMED and separator.isspace():
            return end.removeprefix(separator)
        return end

    def _inner(self) -> str:
        rules = [
            self._rules.add(f"inner_{index}", self._call(index, tool))
            for index, tool in enumerate(self._tools.tools)
        ]
        return self._rules.add("inner", " | ".join(rules))

    def _call(self, index: int, tool: Tool) -> str:
        """Return an expression for a call without the markers around it."""
        calls = self._calls
        if calls.form is CallForm.OBJECT:
            return self._object(index, tool)
        if calls.form is CallForm.KEYED:
            head = f"{{{json.dumps(tool.name, ensure_ascii=False)}: "
            return f'{literal(head)} {self.arguments(index)} "}}"'
        name = f"{literal(tool.name)} {self._rules.marker(calls.name_end)}"
        if calls.arguments is ArgumentForm.JSON:
            return f"{name} {self.arguments(index)}"
        if calls.arguments is ArgumentForm.PAIRS:
            schema = parameters_of(tool) if self._strict else {}
            return f"{name} {self._pairs.arguments(f'pairs_{index}', schema)}"
        return f"{name} {self._members(index, tool)}"

    def _object(self, index: int, tool: Tool) -> str:
        calls = self._calls
        opening = "{"
        if calls.id_key:
            opening = f'{{{json.dumps(calls.id_key)}: "{SLOT}", '
        if calls.wrapper:
            opening = f"{{{json.dumps(calls.wrapper)}: {opening}"
        begin = self._rules.marker(f'{opening}{json.dumps(calls.name_key)}: "')
        return f"{begin} {self._object_tail(index, tool)}"

    def _object_tail(self, index: int, tool: Tool) -> str:
        calls = self._calls
        name = json.dumps(tool.name, ensure_ascii=False)[1:]
        head = f"{name}, {json.dumps(calls.arguments_key)}: "
        end = "}}" if calls.wrapper else "}"
        return f"{literal(head)} {self.arguments(index)} {literal(end)}"

    # Arguments between markers

    def _members(self, index: int, tool: Tool) -> str:
        schema = parameters_of(tool)
        known = _SUPPORTED_KEYWORDS | _ANNOTATIONS | _DEFINITION_KEYWORDS
        if not (self._strict and "properties" in schema and schema.keys() <= known):
            return f"({self._free_member()})*"
        required = required_of(schema)
        definitions = {word: schema[word] for word in _DEFINITION_KEYWORDS & schema.keys()}
        members: list[str] = []
        for number, (key, given) in enumerate(properties_of(schema).items()):
            inner = given if isinstance(given, dict) else {}
            rule = f"value_{index}_{number}"
            member = self._member(rule, key, {**definitions, **inner})
            members.append(member if key in required else f"({member})?")
        return " ".join(members)

    def _member(self, rule: str, key: str, schema: dict[str, Any]) -> str:
        """Return an expression for an argument and what separates it from the next.

        Strings are written as they are, all other values as JSON. The only keywords enforced for
        strings are ``enum`` and ``const``.
        """
        calls, rules = self._calls, self._rules
        types = types_of(schema)
        is_text = "string" in types
        head = f"{calls.argument_start}{key}{calls.key_end.replace(SLOT, self._type(types))}"
        end = calls.value_end.replace(SLOT, key)
        choices = choices_of(schema)
        if not is_text and not self._is_nested(types):
            value = f"{rules.json(rule, closed(schema))} {rules.marker(end)}"
        elif choices is not None:
            texts = [
                choice if isinstance(choice, str) else json.dumps(choice, ensure_ascii=False)
                for choice in choices
            ]
            value = rules.add(rule, " | ".join(rules.marker(f"{text}{end}") for text in texts))
        else:
            value = self._raw(rule, end)
        separator = calls.argument_separator
        return f"{rules.marker(head)} {value} {rules.marker(separator)}"

    def _is_nested(self, types: set[str]) -> bool:
        """Return whether a value is written as elements, which are not bound further."""
        return self._calls.arguments is ArgumentForm.NESTED and (
            not types or bool(types & {"object", "array"})
        )

    def _free_member(self) -> str:
        """Return an expression for an argument of any key."""
        calls, rules = self._calls, self._rules
        head, end = rules.marker(calls.argument_start), calls.value_end
        # The key that an end marker repeats is not bound to be the same.
        return (
            f"{head} NAME {rules.marker(calls.key_end)} {self._raw('raw_value', end)} "
            f"{rules.marker(calls.argument_separator)}"
        )

    def _raw(self, rule: str, end: str) -> str:
        """Return an expression for any text up to and including the marker behind it."""
        word = end.strip()
        before, slot, after = word.partition(SLOT)
        if slot:
            return f"{self._rules.until('raw_value', before)} NAME {self._rules.marker(after)}"
        name = "raw_value" if word == self._calls.value_end.strip() else f"raw_{rule}"
        return self._rules.until(name, word)

    def _type(self, types: set[str]) -> str:
        calls = self._calls
        if "string" in types or not calls.string_type:
            return calls.string_type
        if calls.string_type == "string" and types:
            name = min(types)
            return _JSON_TYPES.get(name, name)
        return calls.other_type
