"""Answers that must follow a JSON schema, whatever the schema is."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.client import Reply
from tests.e2e.daemon import Daemon

pytestmark = pytest.mark.e2e

TOGETHER = 10

Schema = dict[str, Any]

_names = st.sampled_from(["a", "b", "name", "größe", "a b", '"', "$x", "0"])
_bounds = st.integers(-1000, 1000)


def _between(low: str, high: str, numbers: st.SearchStrategy[int]) -> st.SearchStrategy[Schema]:
    """Return a strategy for two bounds, the lower one first, for one, or for none."""
    pairs = st.tuples(numbers, numbers).map(
        lambda pair: dict(zip((low, high), sorted(pair), strict=True))
    )
    return pairs | numbers.map(lambda bound: {low: bound}) | st.just({})


_leaves = st.one_of(
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"const": "so"}]),
    st.lists(st.text(max_size=5) | st.integers() | st.none(), min_size=1, max_size=3).map(
        lambda values: {"enum": values}
    ),
    _between("minLength", "maxLength", st.integers(0, 12)).map(
        lambda bounds: {"type": "string", "maxLength": 20} | bounds
    ),
    st.sampled_from([r"^[a-z]{2,5}$", r"\d{3}-\d{4}", "^(yes|no)$"]).map(
        lambda pattern: {"type": "string", "pattern": pattern, "maxLength": 12}
    ),
    st.sampled_from(["date", "uuid", "ipv4"]).map(lambda form: {"type": "string", "format": form}),
    _between("minimum", "maximum", _bounds).map(lambda bounds: {"type": "integer"} | bounds),
    _between("minimum", "maximum", _bounds).map(lambda bounds: {"type": "number"} | bounds),
)


@st.composite
def _objects(draw: st.DrawFn, inner: st.SearchStrategy[Schema]) -> Schema:
    properties = draw(st.dictionaries(_names, inner, max_size=3))
    required = [name for name in properties if draw(st.booleans())]
    schema: Schema = {"type": "object", "properties": properties, "required": required}
    if draw(st.booleans()):
        schema["additionalProperties"] = False
    return schema


def _deeper(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    arrays = st.tuples(inner, _between("minItems", "maxItems", st.integers(0, 3))).map(
        lambda pair: {"type": "array", "items": pair[0], "maxItems": 3} | pair[1]
    )
    choices = st.lists(inner, min_size=1, max_size=3).map(lambda choices: {"anyOf": choices})
    return arrays | choices | _objects(inner)


schemas = st.recursive(_leaves, _deeper, max_leaves=6)


def _ask(daemon: Daemon, schema: Any, **fields: Any) -> Reply:
    form = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
    body = {
        "model": "default",
        "messages": [{"role": "user", "content": "Give an example as short as can be."}],
        "response_format": form,
        "max_tokens": 60,
    }
    return daemon.client.call("POST", "/v1/chat/completions", body | fields)


@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(together=st.lists(schemas, min_size=TOGETHER, max_size=TOGETHER))
def test_every_complete_answer_is_valid_by_its_schema(
    daemon: Daemon, together: list[Schema]
) -> None:
    """A complete answer is valid by its schema, with ten different schemas at once."""
    with ThreadPoolExecutor(TOGETHER) as pool:
        replies = list(pool.map(lambda schema: _ask(daemon, schema), together))
    for schema, reply in zip(together, replies, strict=True):
        if reply.status == 400:
            # Such as anyOf of impossible choices: the error says so.
            assert reply.body["error"]["param"] == "response_format"
            continue
        assert reply.status == 200, (schema, reply)
        (choice,) = reply.body["choices"]
        if choice["finish_reason"] == "stop":
            value = json.loads(choice["message"]["content"])
            assert jsonschema_rs.is_valid(schema, value), (schema, value)


def _is_valid(schema: Any, value: object) -> bool:
    """Return whether `value` is valid, or the schema's pattern is too large for the validator."""
    try:
        return jsonschema_rs.is_valid(schema, value)
    except jsonschema_rs.ValidationError as error:
        return "regex" in str(error)


def _nested(levels: int) -> Schema:
    schema: Schema = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


HOSTILE: dict[str, Any] = {
    "long text": {"type": "string", "minLength": 10**9},
    "many items": {"type": "array", "items": {"type": "string"}, "minItems": 10**9},
    "repeats of repeats": {
        "type": "array",
        "items": {"type": "array", "items": {"type": "integer"}, "maxItems": 100_000},
        "maxItems": 100_000,
    },
    "deep": _nested(25),
    "no end": {"$defs": {"n": {"$ref": "#/$defs/n"}}, "$ref": "#/$defs/n"},
    "endless object": {
        "$defs": {
            "n": {"type": "object", "properties": {"c": {"$ref": "#/$defs/n"}}, "required": ["c"]}
        },
        "$ref": "#/$defs/n",
    },
    "two that need each other": {
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
        "$ref": "#/$defs/a",
    },
    "own root": {"type": "array", "items": {"$ref": "#"}},
    "file": {"$ref": "file:///etc/passwd"},
    "network": {"$ref": "http://127.0.0.1:1/schema"},
    "missing": {"$ref": "#/$defs/none"},
    "pattern of many": {"type": "string", "pattern": "^(a|b|ab)*(c{1,5000}d{1,5000}){1,1000}$"},
    "pattern of stars": {"type": "string", "pattern": "^((((a*)*)*)*)*$"},
    "pattern backwards": {"type": "string", "pattern": r"(a)\1"},
    "pattern ahead": {"type": "string", "pattern": "(?=a)b"},
    "pattern broken": {"type": "string", "pattern": "(["},
    "pattern of all": {"type": "string", "pattern": r"^\p{L}{1000}$"},
    "many names": {
        "type": "object",
        "properties": {f"name{number}": {"type": "string"} for number in range(1500)},
    },
    "many choices": {"enum": [f"{number:0100}" for number in range(500)]},
    "choices of choices": {
        "allOf": [
            {"anyOf": [{"properties": {f"k{i}{j}": {"type": "string"}}} for j in range(5)]}
            for i in range(12)
        ]
    },
    "big numbers": {"type": "integer", "minimum": 10**30, "maximum": 10**31},
    "nothing between": {"type": "integer", "minimum": 5, "maximum": 4},
    "never": False,
    "not": {"not": {"type": "string"}},
    "unique": {"type": "array", "uniqueItems": True},
    "no type": {"type": "banana"},
    "wrong bounds": {"type": "string", "minLength": -5},
    "lists as schemas": {"type": "object", "properties": [1, 2]},
    "own settings": {"x-guidance": {"lenient": True}, "not": {"type": "string"}},
    "too large": {"description": "x" * 100_000},
    "empty choices": {"anyOf": []},
    "branches": {"if": {"type": "string"}, "then": {"minLength": 3}},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_is_refused_or_obeyed_while_others_continue(
    daemon: Daemon, name: str
) -> None:
    """A hostile schema gets a clear 400 or valid output, and a parallel stream completes."""
    schema = HOSTILE[name]
    with daemon.client.stream("Count to a hundred.", max_tokens=30) as beside:
        reply = _ask(daemon, schema, max_tokens=20)
        assert beside.rest()[-1].name == "done"
    if reply.status == 400:
        param = reply.body["error"]["param"]
        assert reply.code == "malformed_body" or param.startswith("response_format"), reply
    else:
        assert reply.status == 200, reply
        (choice,) = reply.body["choices"]
        if choice["finish_reason"] == "stop":
            value = json.loads(choice["message"]["content"])
            assert _is_valid(schema, value), value
