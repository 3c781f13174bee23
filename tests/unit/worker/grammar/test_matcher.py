"""Answers that are constrained_by to a JSON schema, and the bounds of schemas."""

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
def test_what_is_valid_by_a_schema_may_be_said(text: str) -> None:
    """And then nothing more."""
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
def test_what_is_not_valid_cannot_be_said(before: str, letter: str) -> None:
    """From the first letter that is wrong."""
    answer = constrained_by(PERSON)
    assert answer.add(before)
    assert not answer.may_end()
    assert not answer.add(letter)


def test_json_comes_on_one_line() -> None:
    """With one space behind each comma and colon."""
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
def test_a_client_has_no_say_in_the_form(form: dict[str, Any]) -> None:
    """Whatever its schema tells the library that reads it."""
    schema: dict[str, Any] = {"type": "object", "x-guidance": form}
    assert constrained_by(schema).add('{"a": 1, "b": 2}')
    for text in ("{\n", "{ ", '{"a":1'):
        assert not constrained_by(schema).add(text)
        assert not constrained_by({"properties": {"a": schema}}).add(f'{{"a": {text}')
    _refused({"not": {}, "x-guidance": form})
    _refused({"oneOf": [{"type": "string"}, {"minLength": 2}], "x-guidance": form})


def test_an_answer_may_end_where_its_schema_is_fulfilled() -> None:
    """By any of the tokens that end answers; it is complete where nothing else can follow."""
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
    """It would be shown as nothing, and the JSON would be another than the model said."""
    answer = constrained_by({"type": "string"})
    assert answer.add('"a')
    assert not answer.allowed() & {SPECIAL, END, OTHER_END}


def test_no_token_that_ends_an_answer_is_text() -> None:
    """Though some files do not say that it is special: the JSON would be cut off."""
    matcher = compiler_for(ByteVocabulary(ends_are_special=False)).compile_constraint(
        JsonSchema('{"type":"string"}')
    )
    answer = ConstrainedAnswer(matcher)
    assert answer.add('"a')
    assert not answer.allowed() & {SPECIAL, END, OTHER_END}
    assert answer.add('"')
    assert answer.may_end()


def test_a_mask_has_an_entry_for_each_token() -> None:
    """No more, though the library counts in whole bytes."""
    mask = constrained_by({"type": "object"}).matcher.mask()
    assert mask.shape == (ByteVocabulary.num_tokens,)
    assert [token for token, may in enumerate(mask) if may] == [ord("{")]


def test_a_token_that_was_not_allowed_ends_the_answer() -> None:
    """It is not gone on from there, whatever comes."""
    answer = constrained_by({"type": "object"})
    for _ in range(2):
        error = refusal(lambda: answer.matcher.accept(ord("S")))
        assert error.param == "response_format"
    refusal(answer.matcher.mask)


def test_the_vocabulary_is_read_once_and_only_when_it_is_needed() -> None:
    """It takes a while."""

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
def test_what_cannot_be_kept_is_refused_by_its_name(schema: dict[str, Any], keyword: str) -> None:
    """It is not left out in silence."""
    assert keyword in _refused(schema).message


@pytest.mark.parametrize("text", ["", "{", "[]", "5", '"string"', "null", '{"minimum": NaN}'])
def test_what_is_no_schema_is_refused(text: str) -> None:
    """It is the client's mistake."""
    _refused(JsonSchema(text))


# Bounds of what is compiled


def _nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth - 1):
        schema = {"items": schema}
    return schema


def test_a_schema_may_be_as_deep_as_that() -> None:
    """And no deeper: far deeper, it could not even be read."""
    assert depth_of(_nested(MAX_GRAMMAR_DEPTH)) == MAX_GRAMMAR_DEPTH
    constrained_by(_nested(MAX_GRAMMAR_DEPTH))
    assert f"{MAX_GRAMMAR_DEPTH}" in _refused(_nested(MAX_GRAMMAR_DEPTH + 1)).message
    _refused(JsonSchema('{"items":' * 5000 + "{}" + "}" * 5000))


@pytest.mark.parametrize(
    ("value", "depth"), [(5, 0), ("[]", 0), ([], 0), ({}, 0), ([5], 1), ({"a": [[], {"b": 5}]}, 3)]
)
def test_depth_counts_what_holds_something(value: object, depth: int) -> None:
    """Objects and lists alike."""
    assert depth_of(value) == depth


def test_a_schema_has_no_more_characters_than_that() -> None:
    """Whatever they are."""
    num_free = MAX_GRAMMAR_CHARS - len(json.dumps({"title": ""}))
    constrained_by({"title": "x" * num_free})
    assert f"{MAX_GRAMMAR_CHARS}" in _refused({"title": "x" * (num_free + 1)}).message


@pytest.mark.parametrize("number", [10**19, -(10**19), 1e300, 10**400])
def test_a_number_that_would_be_taken_for_another_is_refused(number: float) -> None:
    """Wherever it stands: the library knows none that is larger than its own largest."""
    for schema in ({"minimum": number}, {"anyOf": [{"type": "null"}, {"enum": [number]}]}):
        _refused(schema)


def test_a_large_number_is_kept() -> None:
    """To its last digit, up to where every number of JSON is exact."""
    answer = constrained_by({"type": "integer", "minimum": 2**53 - 2, "maximum": 2**53 - 1})
    assert answer.add(str(2**53)[:-1])
    assert answer.allowed() == {ord("0"), ord("1")}
