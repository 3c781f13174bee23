"""Constrain an answer to a grammar: compute which tokens may come next, with llguidance."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import llguidance
import numpy as np
from llguidance.gbnf_to_lark import gbnf_to_lark
from numpy.typing import NDArray

from llmd.engine.protocol import ChatPrompt, Constraint, JsonSchema, Part, Submit, Tools
from llmd.errors import InvalidField
from llmd.worker.grammar.rules import JSON_OPTIONS
from llmd.worker.grammar.tools import constraint_grammar, has_opening, tool_grammar
from llmd.worker.syntax import Syntax

MAX_GRAMMAR_CHARS = 65_536
"""Length limit of a schema, of a grammar, and of the schemas of all tools together."""

MAX_GRAMMAR_DEPTH = 64
"""How deep the JSON of a schema may be nested."""

SLOW_S = 0.03
"""A step of the matcher that takes this long is slow."""

MAX_SLOW = 10
"""Give up a grammar after more slow steps than this. A step that is not slow offsets one."""

Mask = NDArray[np.bool_]

_MAX_NUMBER = 10**18
"""llguidance replaces larger bounds in a schema by its own largest number."""

_LIMITS = llguidance.LLParserLimits(
    # A grammar of this size compiles within a second. The other limits are llguidance's defaults.
    max_grammar_size=100_000,
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=200_000,
    step_max_items=50_000,
    max_lexer_states=50_000,
    verbose_errors=False,
)


class GrammarMatcher:
    """The position of one answer in its grammar."""

    def __init__(self, matcher: llguidance.LLMatcher, num_vocab: int, param: str) -> None:
        self._matcher = matcher
        self._num_vocab = num_vocab
        self._param = param
        self._num_slow = 0

    def mask(self) -> Mask:
        """Return for each token whether it may come next. Raise `InvalidField` if none may."""
        began = time.perf_counter()
        raw = self._matcher.compute_bitmask()
        self._check_error()
        self._check_time(time.perf_counter() - began)
        bits = np.unpackbits(np.frombuffer(raw, dtype=np.uint8), bitorder="little")
        mask = bits[: self._num_vocab].astype(np.bool_)
        if not mask.any():
            raise InvalidField(
                "the grammar allows no token here: every rule must be able to end, with characters "
                "that the model has tokens for",
                param=self._param,
            )
        return mask

    def accept(self, token: int) -> None:
        """Advance by a token. Raise `InvalidField` if the grammar becomes too complex."""
        began = time.perf_counter()
        if not self._matcher.consume_token(token):
            self._check_error()
        self._check_time(time.perf_counter() - began)

    @property
    def is_complete(self) -> bool:
        """Whether the answer is complete, so that no further token is allowed."""
        return self._matcher.is_stopped()

    def _check_time(self, took_s: float) -> None:
        """Raise `InvalidField` if the grammar is slow again and again.

        An ambiguous grammar takes longer with each token. This runs in the decoding thread, where
        it would stall all other requests.
        """
        self._num_slow = max(0, self._num_slow - 1) if took_s < SLOW_S else self._num_slow + 1
        if self._num_slow > MAX_SLOW:
            raise InvalidField(
                "the grammar is too slow to match: make it unambiguous", param=self._param
            )

    def _check_error(self) -> None:
        if self._matcher.is_error():
            raise InvalidField(
                f"the grammar cannot be matched further: {_first_line(self._matcher.get_error())}",
                param=self._param,
            )


class Vocabulary(Protocol):
    """The tokens of a model, as far as grammars need them."""

    num_tokens: int
    bos: int

    @property
    def special_ids(self) -> dict[str, int]:
        """The ids of special tokens by spelling."""

    @property
    def end_tokens(self) -> list[int]:
        """All tokens that end an answer."""

    def all_spellings(self) -> list[bytes]:
        """Return the bytes of each token by its id."""

    def tokenize(self, parts: list[Part], *, begin: bool = True) -> list[int]:
        """Return the tokens of a text."""


class GrammarCompiler:
    """Compile grammars for one vocabulary. Thread-safe."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._tokenizer: llguidance.LLTokenizer | None = None
        self._lock = threading.Lock()

    def compile_request(
        self, request: Submit, syntax: Syntax, *, is_thinking: bool
    ) -> GrammarMatcher | None:
        """Return a matcher for a request's constraint or else its tools; None without either.

        Tools that must be called go before a constraint, which is for the text of an answer.
        If llguidance does not support the schemas of tools that need not be called, allow any
        object as arguments. Raise `InvalidField` if a grammar, schema or tool is invalid or not
        supported.
        """
        tools = request.prompt.tools if isinstance(request.prompt, ChatPrompt) else None
        is_required = tools is not None and tools.required
        if request.constraint is not None and not is_required:
            return self.compile_constraint(request.constraint, syntax, is_thinking=is_thinking)
        if tools is None:
            return None
        check_tools(tools)
        try:
            return self._compile_tools(tools, syntax, is_thinking=is_thinking, strict=True)
        except InvalidField:
            if tools.required:
                raise
            return self._compile_tools(tools, syntax, is_thinking=is_thinking, strict=False)

    def compile_constraint(
        self, constraint: Constraint, syntax: Syntax | None = None, *, is_thinking: bool = False
    ) -> GrammarMatcher:
        """Return a matcher for a constraint. Raise `InvalidField` if it is not valid.

        With a syntax, the constraint is for the text of an answer: a thought may precede it.
        """
        if isinstance(constraint, JsonSchema):
            grammar, param = _schema_grammar(constraint.schema), "response_format"
            lark = _schema_lark(constraint.schema)
        else:
            lark, param = _gbnf_lark(constraint.text), "grammar"
            grammar = llguidance.LLMatcher.grammar_from_lark(lark)
        if syntax is not None and has_opening(syntax, is_thinking=is_thinking):
            special = self._vocabulary.special_ids
            lark = constraint_grammar(lark, syntax, special=special, is_thinking=is_thinking)
            grammar = llguidance.LLMatcher.grammar_from_lark(lark)
        return self._compile(grammar, param)

    def _compile_tools(
        self, tools: Tools, syntax: Syntax, *, is_thinking: bool, strict: bool
    ) -> GrammarMatcher:
        special = self._vocabulary.special_ids
        text = tool_grammar(tools, syntax, special=special, is_thinking=is_thinking, strict=strict)
        return self._compile(llguidance.LLMatcher.grammar_from_lark(text), "tools")

    def _compile(self, grammar: str, param: str) -> GrammarMatcher:
        """Return a matcher for a grammar in llguidance's language, or raise `InvalidField`."""
        matcher = llguidance.LLMatcher(self._get_tokenizer(), grammar, log_level=0, limits=_LIMITS)
        if matcher.is_error():
            raise InvalidField(
                f"{param} cannot be enforced: {_first_line(matcher.get_error())}", param=param
            )
        return GrammarMatcher(matcher, self._vocabulary.num_tokens, param)

    def _get_tokenizer(self) -> llguidance.LLTokenizer:
        """Return the vocabulary for llguidance. It is built once, because that takes a while."""
        with self._lock:
            if self._tokenizer is None:
                wrapped: Any = llguidance.TokenizerWrapper(_TokenizerAdapter(self._vocabulary))
                self._tokenizer = llguidance.LLTokenizer(
                    wrapped, eos_token=self._vocabulary.end_tokens
                )
            return self._tokenizer


class _TokenizerAdapter:
    """The vocabulary with the interface that llguidance expects."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.tokens: Sequence[bytes] = vocabulary.all_spellings()
        # Some model files do not mark end tokens as special. As text they would cut the answer off.
        special = {*vocabulary.special_ids.values(), *vocabulary.end_tokens}
        self.special_token_ids = sorted(special)
        self.eos_token_id = vocabulary.end_tokens[0]
        self.bos_token_id = vocabulary.bos if vocabulary.bos >= 0 else None

    def __call__(self, text: bytes) -> list[int]:
        return self._vocabulary.tokenize([Part(text=text.decode("utf-8", "replace"))], begin=False)


def _schema_grammar(text: str) -> str:
    if len(text) > MAX_GRAMMAR_CHARS:
        raise InvalidField(
            f"the schema is longer than {MAX_GRAMMAR_CHARS} characters", param="response_format"
        )
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidField("the schema is not valid JSON", param="response_format") from None
    if not isinstance(schema, dict | bool):
        raise InvalidField("the schema must be a JSON object", param="response_format")
    if depth_of(schema) > MAX_GRAMMAR_DEPTH:
        raise InvalidField(
            f"the schema is nested deeper than {MAX_GRAMMAR_DEPTH} levels", param="response_format"
        )
    if any(abs(number) > _MAX_NUMBER for number in _numbers(schema)):
        raise InvalidField(
            "the schema contains a number of more than 18 digits", param="response_format"
        )
    try:
        return llguidance.LLMatcher.grammar_from_json_schema(text, overrides=JSON_OPTIONS)
    except ValueError as error:
        raise InvalidField(
            f"the schema cannot be enforced: {_first_line(str(error))}", param="response_format"
        ) from None


def check_tools(tools: Tools) -> None:
    """Raise `InvalidField` if the schemas of the tools are too long to be compiled."""
    num_chars = sum(len(tool.parameters) for tool in tools.tools)
    if num_chars > MAX_GRAMMAR_CHARS:
        raise InvalidField(
            f"the parameters of all tools together are longer than {MAX_GRAMMAR_CHARS} characters",
            param="tools",
        )


def depth_of(value: object) -> int:
    """Return how deep a JSON value is nested, 0 for one that contains no others."""
    depth, level = 0, [value]
    while level := [
        item
        for outer in level
        if isinstance(outer, dict | list)
        for item in (outer.values() if isinstance(outer, dict) else outer)
    ]:
        depth += 1
    return depth


def _numbers(value: object) -> Iterator[int | float]:
    """Yield all numbers in a JSON value."""
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _numbers(item)


def _schema_lark(text: str) -> str:
    """Return the grammar of a schema that has been checked, in Lark."""
    schema = json.loads(text)
    options = {"x-guidance": JSON_OPTIONS} if isinstance(schema, dict) else {}
    given = {**schema, **options} if isinstance(schema, dict) else schema
    return f"start: %json {json.dumps(given, ensure_ascii=False)}\n"


def _gbnf_lark(text: str) -> str:
    if len(text) > MAX_GRAMMAR_CHARS:
        raise InvalidField(
            f"the grammar is longer than {MAX_GRAMMAR_CHARS} characters", param="grammar"
        )
    try:
        lark = gbnf_to_lark(_ESCAPE.sub(_unescape, text))
        llguidance.LLMatcher.grammar_from_lark(lark)
        return str(lark)
    except Exception as error:  # noqa: BLE001 - the translator raises exceptions of many types
        raise InvalidField(
            f"the grammar is not valid GBNF: {_first_line(str(error))}", param="grammar"
        ) from None


_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)", re.DOTALL)


def _unescape(match: re.Match[str]) -> str:
    """Return the character of an escape by its code. The translator drops leading zeros of it."""
    if len(match[1]) == 1:
        return match[0]
    code = int(match[1][1:], 16)
    return f"\\x{code:02x}" if code < 0x80 else chr(code)


def _first_line(text: str) -> str:
    line = text.strip().partition("\n")[0]
    return line if len(line) <= 300 else line[:300] + "…"
