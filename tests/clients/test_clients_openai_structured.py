"""OpenAI's client requests answers in a given format."""

from __future__ import annotations

import enum
import json
from typing import Annotated, Any, Literal

import jsonschema_rs
import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel, Field

from tests.clients.sdk import FRANCE, MODEL, ask, content_of, joined, stream

pytestmark = pytest.mark.e2e


class Mood(enum.Enum):
    """How somebody feels."""

    GOOD = "good"
    BAD = "bad"


class Place(BaseModel):
    """Where something is."""

    city: Literal["Paris", "Rome"]
    is_capital: bool


Score = Annotated[int, Field(ge=1, le=9)]


class Report(BaseModel):
    """A field of each kind that clients describe. No field can be long."""

    mood: Mood
    place: Place
    scores: Annotated[list[Score], Field(min_length=1, max_length=3)]
    others: Annotated[list[Place], Field(max_length=1)]
    rank: Score | None
    note: Literal["none", "some"] = "none"


class Answer(BaseModel):
    """The smallest class to fill in."""

    yes: bool


def _format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}


def test_any_object_can_be_requested(client: OpenAI) -> None:
    """The answer is a JSON object, or the beginning of one that was cut off."""
    question = 'Answer with this JSON and nothing else: {"capital": "Paris"}'
    answer = ask(client, question, response_format={"type": "json_object"}, max_tokens=64)
    assert content_of(answer).startswith("{")
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(content_of(answer)), dict)


def test_a_class_is_filled_in(client: OpenAI) -> None:
    """A class with nested objects, enums, lists and an optional field is filled in."""
    completion = client.chat.completions.parse(
        model=MODEL,
        messages=[{"role": "user", "content": "Report about Paris."}],
        response_format=Report,
        max_tokens=256,
    )
    (choice,) = completion.choices
    assert choice.finish_reason == "stop"
    assert isinstance(choice.message.parsed, Report)


def test_a_class_is_filled_in_by_a_response(client: OpenAI) -> None:
    """The Responses API accepts the same schemas."""
    response = client.responses.parse(
        model=MODEL, input="Report about Paris.", text_format=Report, max_output_tokens=256
    )
    assert isinstance(response.output_parsed, Report)


def test_a_class_is_filled_in_by_a_stream(client: OpenAI) -> None:
    """The client's own reader of streams builds the object."""
    with client.chat.completions.stream(
        model=MODEL,
        messages=[{"role": "user", "content": FRANCE}],
        response_format=Answer,
        max_tokens=64,
    ) as events:
        events.until_done()
        final = events.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Answer)


def test_a_schema_is_followed_streamed_or_not(client: OpenAI) -> None:
    """The answer follows the schema, and is the same as a stream."""
    answer = ask(client, FRANCE, response_format=_format(CITY), max_tokens=32)
    jsonschema_rs.validate(CITY, json.loads(content_of(answer)))
    assert answer.choices[0].finish_reason == "stop"
    chunks = stream(client, FRANCE, response_format=_format(CITY), max_tokens=32)
    assert joined(chunks) == content_of(answer)


@pytest.mark.parametrize(
    "given",
    [
        {"type": "xml"},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"name": "answer"}},
        {"type": "json_schema", "json_schema": {"name": "answer", "schema": "{}"}},
    ],
)
def test_an_invalid_format_is_refused(client: OpenAI, given: dict[str, Any]) -> None:
    """An invalid response format is refused."""
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, FRANCE, response_format=given)
    assert (refused.value.param or "").startswith("response_format")


@pytest.mark.parametrize(("keyword", "value"), [("not", {}), ("uniqueItems", True)])
def test_a_keyword_that_cannot_be_enforced_is_named(
    client: OpenAI, keyword: str, value: object
) -> None:
    """A schema with a keyword that cannot be enforced is refused, and the error names it."""
    schema = {"type": "array", "items": {"type": "integer"}, keyword: value}
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, FRANCE, response_format=_format(schema))
    assert keyword in refused.value.message


def test_text_is_a_format_too(client: OpenAI) -> None:
    """The format `text` has no effect."""
    answer = ask(client, FRANCE, response_format={"type": "text"})
    assert content_of(answer) == content_of(ask(client, FRANCE))


LLAMA_CPP: dict[str, dict[str, Any]] = {
    "grammar": {"grammar": 'root ::= "Paris" | "Rome"'},
    "json_schema": {"json_schema": {"enum": ["Paris", "Rome"]}},
    "schema": {"response_format": {"type": "json_object", "schema": {"enum": ["Paris", "Rome"]}}},
}


@pytest.mark.parametrize("fields", LLAMA_CPP.values(), ids=LLAMA_CPP.keys())
def test_the_fields_of_llama_cpp_work(client: OpenAI, fields: dict[str, Any]) -> None:
    """The fields of llama.cpp's server work: a grammar, a bare schema, a schema in the format."""
    answer = ask(client, FRANCE, extra_body=fields, max_tokens=32)
    assert content_of(answer).strip('"') in {"Paris", "Rome"}
    assert answer.choices[0].finish_reason == "stop"


def test_an_invalid_grammar_is_refused(client: OpenAI) -> None:
    """An invalid grammar is refused by its field."""
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, FRANCE, extra_body={"grammar": "root ::= ("})
    assert refused.value.param == "grammar"
