"""Write grammars that constrain an answer to text and well-formed tool calls, for llguidance.

Its language is Lark with additions: ``%json {…}`` is a value that a schema describes,
``<[1,4-6]>`` is one token of these ids, and a rule with ``[lazy]`` ends as early as it can. Text
never matches a special token.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llmd.engine.protocol import Tool, Tools
from llmd.worker.syntax import ARGUMENTS_MARKER, CallFormat, Syntax
from llmd.worker.tool_schema import parameters_of, properties_of, types_of

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

_TERMINALS = [r"TEXT: /(.|\n)+/", r"ANY: /(.|\n)*/", r"NAME: /[^<>\n]+/"]

_NEWLINE = r'"\n"'

_SEPARATORS = {CallFormat.NAME_AND_JSON: "", CallFormat.BARE_JSON: '"; "'}
"""Separators between two calls, by format. In the other formats it is a line end."""

_SUPPORTED_KEYWORDS = {"type", "properties", "required", "additionalProperties"}
"""Keywords of an object's schema that can be enforced in the format `XML`."""

_ANNOTATIONS = {"title", "description", "default", "examples", "$schema", "$id", "$comment"}
"""Keywords that do not restrict a value."""

_DEFINITION_KEYWORDS = {"$defs", "definitions"}
"""Keywords whose schemas are referred to by ``$ref``."""


def tool_grammar(
    tools: Tools,
    syntax: Syntax,
    *,
    special: Mapping[str, int],
    is_thinking: bool = False,
    strict: bool = True,
) -> str:
    """Return a grammar for an answer that may call tools, or must if `Tools.required`.

    If no call is required, text may precede the calls. Nothing may follow them. `special` are the
    ids of the model's special tokens by spelling. If `is_thinking`, the prompt ends with an open
    thought, which has to end before the calls. Without `strict`, any JSON object is allowed as
    arguments, for schemas that llguidance cannot enforce. Raise `InvalidField` for a schema that
    is not a JSON object.
    """
    return _GrammarBuilder(tools, syntax, special, strict=strict).text(is_thinking=is_thinking)


class _GrammarBuilder:
    """Collects the rules of one grammar, one line each."""

    def __init__(
        self, tools: Tools, syntax: Syntax, special: Mapping[str, int], *, strict: bool
    ) -> None:
        self._tools = tools
        self._syntax = syntax
        self._special = special
        self._strict = strict
        self._rules = ["%llguidance {}", *_TERMINALS]

    def text(self, *, is_thinking: bool) -> str:
        self._add("body", self._body())
        self._add("start", self._start(is_thinking=is_thinking))
        return "\n".join([*self._rules, ""])

    def _add(self, name: str, body: str) -> str:
        self._rules.append(f"{name}: {body}")
        return name.partition("[")[0]

    def _marker(self, spelling: str) -> str:
        token = self._special.get(spelling)
        return _literal(spelling) if token is None else f"<[{token}]>"

    # The answer as a whole

    def _start(self, *, is_thinking: bool) -> str:
        opening, closing = self._syntax.thought_start_marker, self._syntax.thought_end_marker
        if self._tools.required:
            calls = self._add("calls", self._calls())
            if not is_thinking:
                return calls
            # Allow no other special tokens, because some of them end the answer.
            end = self._text_up_to("end_of_thought", closing, excluded=None)
            return f'{end} ("\\n" | "\\n\\n")? {calls}'
        answer = self._add("answer", self._answer())
        if not self._syntax.thinks:
            return answer
        end = self._text_up_to("end_of_thought", closing, excluded=[closing])
        thought = self._add("thought", f"{self._free_text([closing])} TEXT? | {end} {answer}")
        return thought if is_thinking else f"{answer} | {self._marker(opening)} {thought}"

    def _answer(self) -> str:
        """Return an expression for text, with or without calls behind it."""
        syntax = self._syntax
        excluded = [syntax.call_start_marker, syntax.thought_start_marker]
        marker = self._text_up_to("text_and_marker", syntax.call_start_marker, excluded=excluded)
        text = f"{self._free_text(excluded)} TEXT?"
        if syntax.call_format is not CallFormat.BARE_JSON:
            return f"{text} | {marker} {self._calls(is_begun=True)}"
        # An answer that begins like this is a call. Any other object is text.
        begin = self._add("begin[lazy]", r'/\s*\{\s*"name"\s*:\s*"/')
        calls = self._add("calls", self._calls())
        return f"{text} | {marker} {calls} | {begin} {self._calls(is_begun=True)}"

    def _free_text(self, excluded: list[str] | None) -> str:
        """Return an expression for pieces of text that each end with a special token.

        The special tokens in `excluded` do not match. With None, none matches and the expression
        is empty.
        """
        if excluded is None:
            return ""
        ids = {token for spelling, token in self._special.items() if spelling not in excluded}
        return f"(TEXT? <[{_ranges(ids)}]>)*" if ids else ""

    def _text_up_to(self, name: str, marker: str, *, excluded: list[str] | None) -> str:
        """Return an expression for text up to and including a marker."""
        if marker in self._special:
            return f"{self._free_text(excluded)} TEXT? {self._marker(marker)}"
        return (
            f"{self._free_text(excluded)} {self._add(f'{name}[lazy]', f'ANY {_literal(marker)}')}"
        )

    # Calls

    def _calls(self, *, is_begun: bool = False) -> str:
        """Return an expression for calls. With `is_begun`, the first one's marker precedes it."""
        call_format = self._syntax.call_format
        call = f"{self._call_begin} body"
        calls = "body" if is_begun else call
        if not self._tools.parallel or call_format is CallFormat.JSON_LIST:
            return calls
        return f"{calls} ({_SEPARATORS.get(call_format, _NEWLINE)} {call})*"

    @property
    def _call_begin(self) -> str:
        if self._syntax.call_format is CallFormat.BARE_JSON:
            return _literal('{"name": "')
        return self._marker(self._syntax.call_start_marker)

    def _body(self) -> str:
        """Return an expression for a call, or a list of calls, behind its marker."""
        call_format = self._syntax.call_format
        inner = self._any_of(
            "inner", self._function if call_format is CallFormat.XML else self._object
        )
        if call_format is CallFormat.JSON_LIST:
            more = f'(", " {inner})*' if self._tools.parallel else ""
            return f'" "? "[" {inner} {more} "]"'
        if call_format in {CallFormat.NAME_AND_JSON, CallFormat.BARE_JSON}:
            return inner
        return f'"\\n" {inner} "\\n" {self._marker(self._syntax.call_end_marker)}'

    def _any_of(self, name: str, make: Callable[[str, Tool], str]) -> str:
        rules = [
            self._add(f"{name}_{index}", make(str(index), tool))
            for index, tool in enumerate(self._tools.tools)
        ]
        return self._add(name, " | ".join(rules))

    def _object(self, index: str, tool: Tool) -> str:
        """Return an expression for a call in any format but `XML`."""
        schema = parameters_of(tool) if self._strict else {}
        arguments = self._json(f"arguments_{index}", {**schema, "type": "object"})
        call_format = self._syntax.call_format
        if call_format is CallFormat.NAME_AND_JSON:
            return f"{_literal(tool.name)} {self._marker(ARGUMENTS_MARKER)} {arguments}"
        name = json.dumps(tool.name, ensure_ascii=False)
        begin = name[1:] if call_format is CallFormat.BARE_JSON else f'{{"name": {name}'
        head = f'{begin}, "{self._syntax.arguments_key}": '
        return f'{_literal(head)} {arguments} "}}"'

    def _json(self, name: str, schema: dict[str, Any]) -> str:
        options = {"x-guidance": JSON_OPTIONS}
        return self._add(name, f"%json {json.dumps({**schema, **options}, ensure_ascii=False)}")

    # Calls in the format XML

    def _function(self, index: str, tool: Tool) -> str:
        schema = parameters_of(tool)
        has_properties = self._strict and "properties" in schema
        if (
            has_properties
            and schema.keys() <= _SUPPORTED_KEYWORDS | _ANNOTATIONS | _DEFINITION_KEYWORDS
        ):
            parameters = self._parameters(index, schema)
        else:
            parameters = f'("<parameter=" NAME ">\\n" {self._raw_value()} "\\n")*'
        return f'{_literal(f"<function={tool.name}>")} "\\n" {parameters} "</function>"'

    def _parameters(self, index: str, schema: dict[str, Any]) -> str:
        """Return an expression for the parameters in the schema's order, the others optional."""
        required = schema.get("required")
        required = required if isinstance(required, list) else []
        properties = properties_of(schema)
        definitions = {word: schema[word] for word in _DEFINITION_KEYWORDS & schema.keys()}
        parameters: list[str] = []
        for number, (name, given) in enumerate(properties.items()):
            inner = given if isinstance(given, dict) else {}
            value = self._value(f"value_{index}_{number}", {**definitions, **inner})
            parameter = f'{_literal(f"<parameter={name}>")} "\\n" {value} "\\n"'
            parameters.append(parameter if name in required else f"({parameter})?")
        return " ".join(parameters)

    def _value(self, name: str, schema: dict[str, Any]) -> str:
        """Return an expression for a parameter's value with the tag that ends it.

        Strings are written as they are, all other values as JSON. The only keywords enforced for
        strings are ``enum`` and ``const``.
        """
        choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if "string" not in types_of(schema):
            return f'{self._json(name, schema)} "\\n</parameter>"'
        if not isinstance(choices, list):
            return self._raw_value()
        texts = [
            choice if isinstance(choice, str) else json.dumps(choice, ensure_ascii=False)
            for choice in choices
        ]
        return self._add(name, " | ".join(_literal(f"{text}\n</parameter>") for text in texts))

    def _raw_value(self) -> str:
        rule = 'raw_value[lazy]: ANY "</parameter>"'
        if rule not in self._rules:
            self._rules.append(rule)
        return "raw_value"


def _literal(text: str) -> str:
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
