"""Check answers under the grammar of tools, with a vocabulary of bytes and special tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from llmd.engine.protocol import CallDelta, Delta, Reasoning, Tool, Tools
from llmd.worker.answer.parser import AnswerParser
from llmd.worker.grammar.tools import tool_grammar
from llmd.worker.syntax import Syntax

llguidance = pytest.importorskip("llguidance")

MARKERS = [
    "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>",
    "<think>", "</think>", "<other>", "<|calls_begin|>", "<|calls_end|>", "<|call_begin|>",
    "<|call_end|>", "<|argument_begin|>", "|D|", "]|[", "<|tool_call>", "<tool_call|>", '<|"|>',
    "<|tools_prefix|>", "<|tools_suffix|>", "<|channel>", "<channel|>",
    "<|channel|>", "<|message|>", "<|start|>", "<|end|>",
]  # fmt: skip
END = 256
SPECIAL = {text: END + 1 + index for index, text in enumerate(MARKERS)}

SCHEMAS: dict[str, dict[str, Any]] = {
    "weather": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 0, "maximum": 9},
            "unit": {"enum": ["C", 'F"']},
        },
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
    "send": {
        "$defs": {"to": {"type": "array", "items": {"const": None}, "maxItems": 2}},
        "properties": {"to": {"$ref": "#/$defs/to"}, "ok": {"type": "boolean"}},
        "required": ["to"],
        "additionalProperties": False,
    },
    "any": {},
}


class _ByteVocabulary:
    """A vocabulary of single bytes and special tokens, as llguidance expects it."""

    eos_token_id = END
    bos_token_id = None

    def __init__(self, special: Sequence[str]) -> None:
        self.tokens = [bytes([byte]) for byte in range(256)] + [b"<end>"]
        self.tokens += [text.encode() for text in special]
        self.special_token_ids = list(range(END, len(self.tokens)))

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


def _tokenizer(special: Sequence[str]) -> Any:
    return llguidance.LLTokenizer(llguidance.TokenizerWrapper(_ByteVocabulary(special)))


_WITH_SPECIAL, _WITHOUT = _tokenizer(MARKERS), _tokenizer([])


@dataclass
class ConstrainedAnswer:
    """An answer under a grammar, as far as it has been written."""

    matcher: Any
    special: dict[str, int]
    text: str = ""
    raw: bytearray = field(default_factory=bytearray)

    def allowed(self) -> set[int]:
        mask = self.matcher.compute_bitmask()
        assert not self.matcher.is_error(), self.matcher.get_error()
        return {token for token in range(8 * len(mask)) if mask[token // 8] >> token % 8 & 1}

    def add(self, text: str) -> bool:
        """Append a text, with its special tokens as such; return whether all of it was allowed."""
        while text:
            spelling = next((word for word in self.special if text.startswith(word)), "")
            piece = spelling or text[0]
            for token in [self.special[spelling]] if spelling else list(piece.encode()):
                if self.matcher.is_stopped() or token not in self.allowed():
                    return False
                assert self.matcher.consume_token(token)
            self.raw += piece.encode()
            text = text[len(piece) :]
        return True

    def may_end(self) -> bool:
        return bool(self.matcher.is_accepting())


def matcher_of(text: str, *, has_special: bool = True) -> Any:
    """Return a matcher for a grammar. Its `get_error` describes what is wrong with the grammar."""
    return llguidance.LLMatcher(_WITH_SPECIAL if has_special else _WITHOUT, text, log_level=0)


def answer_under(
    tools: Tools,
    syntax: Syntax,
    *,
    has_special: bool = True,
    is_thinking: bool = False,
    strict: bool = True,
) -> ConstrainedAnswer:
    """Return an empty answer under the grammar of these tools."""
    special = SPECIAL if has_special else {}
    text = tool_grammar(tools, syntax, special=special, is_thinking=is_thinking, strict=strict)
    matcher = matcher_of(text, has_special=has_special)
    assert not matcher.is_error(), matcher.get_error()
    return ConstrainedAnswer(matcher, special)


def tools_of(*names: str, required: bool = False, parallel: bool = True) -> Tools:
    """Return tools of these names, with the schemas above."""
    tools = [Tool(name=name, parameters=json.dumps(SCHEMAS[name])) for name in names]
    return Tools(tools=tools, required=required, parallel=parallel)


def parse(
    raw: bytes, tools: Tools, syntax: Syntax, *, is_thinking: bool = False
) -> tuple[str, str, list[tuple[str, str]]]:
    """Return (text, thought, calls) of an answer."""
    parser = AnswerParser(syntax, request_id=1, tools=tools, is_thinking=is_thinking)
    text, thought = "", ""
    names: list[str] = []
    arguments: dict[int, str] = {}
    for event in parser.push(raw.decode("utf-8", "replace")) + parser.finish():
        if isinstance(event, Delta):
            text += event.text
        elif isinstance(event, Reasoning):
            thought += event.text
        elif isinstance(event, CallDelta):
            names += [event.name] if event.name else []
            arguments[event.index] = arguments.get(event.index, "") + event.arguments
    return text, thought, [(name, arguments[index]) for index, name in enumerate(names)]


def is_valid(name: str, value: Any) -> bool:
    """Return whether arguments are valid by the schemas above."""
    if not isinstance(value, dict):
        return False
    if name == "weather":
        return (
            value.keys() <= {"city", "days", "unit"}
            and isinstance(value["city"], str)
            and value["unit"] in {"C", 'F"'}
            and value.get("days", 0) in range(10)
        )
    if name == "send":
        return (
            value.keys() <= {"to", "ok"}
            and value["to"] in ([], [None], [None, None])
            and value.get("ok", True) in {True, False}
        )
    return name == "any"
