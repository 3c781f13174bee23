"""Answers that are constrained to a JSON schema, and the limits of schemas."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmd.engine.protocol import Constraint, JsonSchema
from llmd.errors import InvalidField
from llmd.worker.grammar.matcher import MAX_GRAMMAR_CHARS, MAX_GRAMMAR_DEPTH, depth_of
from tests.support.grammar_walk import (
    END,
    OTHER_END,
    SPECIAL,
    ByteVocabulary,
    ConstrainedAnswer,
    compiler_for,
    constrained_by,
    refusal,
)

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 3},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


def _refused(by: Constraint | dict[str, Any]) -> InvalidField:
    error = refusal(lambda: constrained_by(by))
    assert error.param == "response_format"
    return error


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "Ann", "age": 7}',
        '{"name": "é", "age": 99, "tags": []}',
        '{"name": "A", "age": 0, "tags": ["a", "b"]}',
    ],
)
def test_an_answer_that_is_valid_by_a_schema_is_allowed(text: str) -> None:
    """A valid answer is allowed, and may only end then."""
    answer = constrained_by(PERSON)
    assert answer.add(text)
    assert answer.may_end()
    assert not answer.add(" ")


@pytest.mark.parametrize(
    ("before", "letter"),
    [
        ("", "S"),
        ("", "["),
        ('{"', "a"),
        ('{"name": "', '"'),
        ('{"name": "Ann', "e"),
        ('{"name": "Ann"', "}"),
        ('{"name": "Ann", "age": ', "-"),
        ('{"name": "Ann", "age": 10', "0"),
        ('{"name": "Ann", "age": 7, "', "m"),
        ('{"name": "Ann", "age": 7, "tags": ["', "c"),
        ('{"name": "Ann", "age": 7, "tags": ["a", "b"', ","),
    ],
)
def test_an_answer_that_is_not_valid_is_not_allowed(before: str, letter: str) -> None:
    """An answer is stopped at the first character that makes it invalid."""
    answer = constrained_by(PERSON)
    assert answer.add(before)
    assert not answer.may_end()
    assert not answer.add(letter)


def test_json_is_on_one_line() -> None:
    """JSON is on one line, with one space behind each comma and colon."""
    assert constrained_by({"type": "object"}).add('{"a": [1, {}], "b": "\\n"}')
    for text in ("{\n", "{ ", '{"a":1', '{"a": 1,"b', '{"a" :', '{"a": 1 }'):
        assert not constrained_by({"type": "object"}).add(text)


@pytest.mark.parametrize(
    "form",
    [
        {"whitespace_flexible": True},
        {"item_separator": ",", "key_separator": ":"},
        {"lenient": True, "coerce_one_of": True},
    ],
)
def test_a_client_cannot_change_how_json_is_written(form: dict[str, Any]) -> None:
    """Options for llguidance in a client's schema have no effect."""
    schema: dict[str, Any] = {"type": "object", "x-guidance": form}
    assert constrained_by(schema).add('{"a": 1, "b": 2}')
    for text in ("{\n", "{ ", '{"a":1'):
        assert not constrained_by(schema).add(text)
        assert not constrained_by({"properties": {"a": schema}}).add(f'{{"a": {text}')
    _refused({"not": {}, "x-guidance": form})
    _refused({"oneOf": [{"type": "string"}, {"minLength": 2}], "x-guidance": form})


def test_an_answer_may_end_where_its_schema_is_fulfilled() -> None:
    """Any end token may end a valid answer, which is complete if nothing else can follow."""
    answer = constrained_by({"type": "integer"})
    assert answer.add("12")
    assert answer.allowed() >= {END, OTHER_END, ord("3")}
    assert not answer.is_complete()
    answer.matcher.accept(OTHER_END)
    assert answer.is_complete()
    answer = constrained_by({"enum": ["a", "ab"]})
    assert answer.add('"a')
    assert not answer.is_complete()
    assert answer.add('"')
    assert answer.is_complete()


def test_no_special_token_is_text() -> None:
    """Special tokens are not allowed in a string."""
    answer = constrained_by({"type": "string"})
    assert answer.add('"a')
    assert not answer.allowed() & {SPECIAL, END, OTHER_END}


def test_no_token_that_ends_an_answer_is_text() -> None:
    """End tokens are not allowed in a string, even if they are not marked as special."""
    matcher = compiler_for(ByteVocabulary(ends_are_special=False)).compile_constraint(
        JsonSchema('{"type":"string"}')
    )
    answer = ConstrainedAnswer(matcher)
    assert answer.add('"a')
    assert not answer.allowed() & {SPECIAL, END, OTHER_END}
    assert answer.add('"')
    assert answer.may_end()


def test_a_mask_has_an_entry_for_each_token() -> None:
    """A mask is as long as the vocabulary, although llguidance rounds up to whole bytes."""
    mask = constrained_by({"type": "object"}).matcher.mask()
    assert mask.shape == (ByteVocabulary.num_tokens,)
    assert [token for token, may in enumerate(mask) if may] == [ord("{")]


def test_a_token_that_was_not_allowed_ends_the_answer() -> None:
    """After a token that is not allowed, the matcher refuses everything."""
    answer = constrained_by({"type": "object"})
    for _ in range(2):
        error = refusal(lambda: answer.matcher.accept(ord("S")))
        assert error.param == "response_format"
    refusal(answer.matcher.mask)


def test_the_vocabulary_is_read_once_and_only_when_it_is_needed() -> None:
    """The vocabulary is read for the first grammar, and only once."""

    class Counted(ByteVocabulary):
        num_read = 0

        def all_spellings(self) -> list[bytes]:
            self.num_read += 1
            return super().all_spellings()

    vocabulary = Counted()
    compiler = compiler_for(vocabulary)
    assert vocabulary.num_read == 0
    for _ in range(2):
        compiler.compile_constraint(JsonSchema("{}"))
    assert vocabulary.num_read == 1


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"not": {"type": "string"}}, "not"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "object", "properties": {"a": {"type": "array", "contains": {}}}}, "contains"),
        ({"type": "string", "format": "color"}, "color"),
        ({"$ref": "#/$defs/nowhere"}, "nowhere"),
    ],
)
def test_an_unsupported_keyword_is_refused_by_its_name(
    schema: dict[str, Any], keyword: str
) -> None:
    """A schema with an unsupported keyword is refused by the keyword's name."""
    assert keyword in _refused(schema).message


@pytest.mark.parametrize("text", ["", "{", "[]", "5", '"string"', "null", '{"minimum": NaN}'])
def test_a_text_that_is_not_a_schema_is_refused(text: str) -> None:
    """A text that is not a JSON schema is refused."""
    _refused(JsonSchema(text))


# Limits of schemas


def _nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth - 1):
        schema = {"items": schema}
    return schema


def test_a_schema_may_be_as_deep_as_the_limit() -> None:
    """A schema may be nested up to the limit, and no deeper."""
    assert depth_of(_nested(MAX_GRAMMAR_DEPTH)) == MAX_GRAMMAR_DEPTH
    constrained_by(_nested(MAX_GRAMMAR_DEPTH))
    assert f"{MAX_GRAMMAR_DEPTH}" in _refused(_nested(MAX_GRAMMAR_DEPTH + 1)).message
    _refused(JsonSchema('{"items":' * 5000 + "{}" + "}" * 5000))


@pytest.mark.parametrize(
    ("value", "depth"), [(5, 0), ("[]", 0), ([], 0), ({}, 0), ([5], 1), ({"a": [[], {"b": 5}]}, 3)]
)
def test_depth_counts_values_that_contain_others(value: object, depth: int) -> None:
    """Depth counts the levels of objects and lists that contain other values."""
    assert depth_of(value) == depth


def test_a_schema_has_no_more_characters_than_the_limit() -> None:
    """A schema may have up to the limit of characters, and no more."""
    num_free = MAX_GRAMMAR_CHARS - len(json.dumps({"title": ""}))
    constrained_by({"title": "x" * num_free})
    assert f"{MAX_GRAMMAR_CHARS}" in _refused({"title": "x" * (num_free + 1)}).message


@pytest.mark.parametrize("number", [10**19, -(10**19), 1e300, 10**400])
def test_a_number_that_is_too_large_is_refused(number: float) -> None:
    """A number too large for llguidance is refused anywhere in a schema."""
    for schema in ({"minimum": number}, {"anyOf": [{"type": "null"}, {"enum": [number]}]}):
        _refused(schema)


def test_a_large_number_is_enforced() -> None:
    """A bound of 16 digits is enforced to its last digit."""
    answer = constrained_by({"type": "integer", "minimum": 2**53 - 2, "maximum": 2**53 - 1})
    assert answer.add(str(2**53)[:-1])
    assert answer.allowed() == {ord("0"), ord("1")}
