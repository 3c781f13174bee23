"""Bodies and parameters that are read, and the refusal of all others."""

from __future__ import annotations

import json

import falcon
import pytest
from falcon import testing
from hypothesis import given, settings
from hypothesis import strategies as st

from llmd.api import body
from llmd.api.openai.chat import ChatBody
from llmd.chat.answer_request import AnswerRequest
from llmd.errors import InvalidField, MalformedBody


def request(
    raw: bytes = b"", query: str = "", headers: dict[str, str] | None = None
) -> falcon.Request:
    """Return a request with a body."""
    environ = testing.create_environ(
        "/answer", method="POST", body=raw, query_string=query, headers=headers
    )
    return falcon.Request(environ)


def read(raw: bytes) -> AnswerRequest:
    """Return a body that was read as that of `POST /answer`."""
    req = request(raw)
    return body.read(req, AnswerRequest)


def test_a_body_is_read_whatever_its_content_type_says() -> None:
    """A body is read as JSON whatever its Content-Type: curl and old clients send other ones."""
    for content_type in ("application/x-www-form-urlencoded", "text/plain", "application/json"):
        req = request(b'{"prompt": "hi"}', headers={"Content-Type": content_type})
        assert body.read(req, AnswerRequest).prompt == "hi"


def test_every_field_of_a_right_body_is_read() -> None:
    """Every field is read, including escapes and characters beyond the first plane."""
    made = read(
        '{"prompt": "\\ud83d\\ude00 é😀", "session_id": 7, "stream": true, "temperature": 0,'
        ' "stop": ["a"], "seed": null}'.encode()
    )
    assert made == AnswerRequest(
        prompt="😀 é😀", session_id=7, stream=True, temperature=0.0, stop=["a"]
    )


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "empty"),
        (b" \r\n\t", "empty"),
        (b"hello", "not JSON"),
        (b"{", "not JSON"),
        (b'{"prompt": "x"} {}', "not JSON"),
        (b"{'prompt': 'x'}", "not JSON"),
        (b'{"prompt": "x",}', "not JSON"),
        (b'{"prompt": "a\nb"}', "not JSON"),
        (b'{"prompt": "x", "temperature": NaN}', "NaN"),
        (b'{"prompt": "x", "temperature": Infinity}', "Infinity"),
        (b'{"prompt": "x", "temperature": -Infinity}', "Infinity"),
        (b'{"prompt": "x", "prompt": "y"}', "prompt twice"),
        (b'{"prompt": "x", "deep": {"a": 1, "b": 2, "a": 3}}', "a twice"),
        (b"[" * 100_000 + b"]" * 100_000, "nested"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested"),
        (b"[" * 34 + b"]" * 34, "nested"),
        (b'{"prompt": "\xff"}', "not UTF-8 at byte 12"),
        (b'{"prompt": "\xed\xa0\x80"}', "not UTF-8"),
        ('{"prompt": "x"}'.encode("utf-16"), "not UTF-8"),
        (b'{"prompt": "a\\ud800"}', "surrogate"),
        (b'{"prompt": "\\udc00\\ud800"}', "surrogate"),
        (b'{"\\ud800": 1}', "surrogate"),
        (b'{"prompt": "x", "stop": ["\\udfff"]}', "surrogate"),
        (b'{"prompt": "x", "seed": ' + b"1" * 5000 + b"}", "digits"),
        (b'{"prompt": "x", "seed": -' + b"1" * 5000 + b"}", "digits"),
        (b'\xef\xbb\xbf{"prompt": "x"}', "not JSON"),
    ],
)
def test_a_body_that_is_not_strict_json_is_malformed(raw: bytes, words: str) -> None:
    """A body that is not strict JSON is malformed, and the message says why."""
    with pytest.raises(MalformedBody) as refused:
        read(raw)
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (b"[]", None),
        (b'"prompt"', None),
        (b"null", None),
        (b"{}", "prompt"),
        (b'{"prompt": ""}', "prompt"),
        (b'{"prompt": 1}', "prompt"),
        (b'{"prompt": null}', "prompt"),
        (b'{"prompt": ["x"]}', "prompt"),
        (b'{"prompt": "x", "promt": "y"}', "promt"),
        (b'{"prompt": "x", "stream": 1}', "stream"),
        (b'{"prompt": "x", "stream": "true"}', "stream"),
        (b'{"prompt": "x", "session_id": 1.5}', "session_id"),
        (b'{"prompt": "x", "session_id": true}', "session_id"),
        (b'{"prompt": "x", "temperature": "0.5"}', "temperature"),
        (b'{"prompt": "x", "temperature": true}', "temperature"),
        (b'{"prompt": "x", "max_tokens": 1.5}', "max_tokens"),
        (b'{"prompt": "x", "stop": 1}', "stop"),
        (b'{"prompt": "x", "stop": [1]}', "stop[0]"),
        (b'{"prompt": "a\\u0000b"}', "prompt"),
        (b'{"prompt": "x", "stop": ["a", "\\u0000"]}', "stop[1]"),
        (b'{"prompt": "x", "a\\u0000b": 1}', "a field's name"),
        (b'{"prompt": "x", "max_tokens": 1e400}', "max_tokens"),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(raw: bytes, param: str | None) -> None:
    """A field of a wrong type or name is refused with its name."""
    with pytest.raises(InvalidField) as refused:
        read(raw)
    assert refused.value.param == param
    assert refused.value.message


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("tool_choice", "perhaps", "any, auto, none, required"),
        ("response_format", {"type": "xml"}, "json_object, json_schema, text"),
        ("messages", [{"role": "god", "content": ""}], "assistant, developer, function"),
    ],
)
def test_a_value_that_is_no_choice_is_answered_with_the_choices(
    field: str, value: object, words: str
) -> None:
    """The error of a field with few values lists them, also within a union, a struct and a list."""
    sent = {"model": "m", "messages": [{"role": "user", "content": "hi"}]} | {field: value}
    with pytest.raises(InvalidField, match=f"must be one of {words}") as refused:
        body.convert(sent, ChatBody)
    assert refused.value.param is not None
    assert refused.value.param.startswith(field)


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (b'{"prompt": "x", "temperature": 1e400}', "temperature"),
        (b'{"prompt": "x", "temperature": -1e400}', "temperature"),
        (b'{"prompt": "x", "top_p": 1e400}', "top_p"),
        (b'{"prompt": "x", "repeat_penalty": 1e400}', "repeat_penalty"),
        (b'{"prompt": "x", "max_tokens": 99999999999999999999999}', "max_tokens"),
        (b'{"prompt": "x", "seed": 18446744073709551616}', "seed"),
        (b'{"prompt": "x", "top_k": 9223372036854775808}', "top_k"),
    ],
)
def test_a_number_out_of_range_is_refused_by_its_name(raw: bytes, param: str) -> None:
    """A number out of range is refused with the field's name, even beyond 64 bits."""
    with pytest.raises(InvalidField) as refused:
        read(raw).check()
    assert refused.value.param == param


def test_a_long_name_of_an_unknown_field_is_cut_in_the_answer() -> None:
    """The name of an unknown field is cut and free of line ends in the message."""
    with pytest.raises(InvalidField) as refused:
        read(b'{"prompt": "x", "' + b"y" * 100_000 + b'\\n": 1}')
    assert len(refused.value.message) < 200
    with pytest.raises(InvalidField) as refused:
        read(b'{"prompt": "x", "a\\nb": 1}')
    assert "\n" not in refused.value.message


def test_a_body_of_very_many_fields_is_checked_in_linear_time() -> None:
    """A duplicate name among 100,000 fields is found in linear time."""
    fields = b",".join(b'"%d":0' % number for number in range(100_000))
    with pytest.raises(MalformedBody, match="99999 twice"):
        read(b"{" + fields + b',"99999":0}')


def test_a_long_path_is_cut_in_the_answer() -> None:
    """A long path to a field is cut in the message and in `param`."""
    with pytest.raises(InvalidField) as refused:
        body.parse(b'{"' + b"n" * 100_000 + b'": ["\\u0000"]}')
    assert len(refused.value.message) < 200
    assert len(refused.value.param or "") < 100


def test_thirty_two_levels_are_read() -> None:
    """A body of 32 levels, the documented maximum, is read."""
    assert body.parse(b"[" * 32 + b"1" + b"]" * 32)


def test_a_compressed_body_is_refused() -> None:
    """A body with a Content-Encoding is refused."""
    req = request(b'{"prompt": "x"}', headers={"Content-Encoding": "gzip"})
    with pytest.raises(MalformedBody, match="compressed"):
        body.read(req, AnswerRequest)


@pytest.mark.parametrize(("query", "limit"), [("", 100), ("limit=1", 1), ("limit=1000", 1000)])
def test_the_limit_of_a_list_is_read(query: str, limit: int) -> None:
    """The limit of a list is read, and is 100 by default."""
    req = request(query=query)
    assert body.limit_of(req) == limit


@pytest.mark.parametrize("value", ["0", "1001", "-1", "x", "1.0", "", "%2B1", "٣", "99999"])
def test_a_wrong_limit_is_refused(value: str) -> None:
    """A limit that is not a number from 1 to 1000 is refused."""
    req = request(query=f"limit={value}")
    with pytest.raises(InvalidField) as refused:
        body.limit_of(req)
    assert refused.value.param == "limit"


_nasty = st.sampled_from(
    [
        *(b"{", b"}", b"[", b"]", b'"', b":", b",", b"prompt", b"\\u", b"d800", b"\x00", b"\xff"),
        *(b"1e999", b"-", b"NaN", b"true", b"null", b'{"prompt":"', b'"}', b"\xf0\x9f", b"9" * 30),
    ]
)


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=60), st.lists(_nasty, max_size=12).map(b"".join)))
def test_any_bytes_are_a_request_or_refused_in_words(raw: bytes) -> None:
    """Any bytes are read or refused with a message, never with another exception."""
    try:
        read(raw).check()
    except (MalformedBody, InvalidField) as error:
        assert error.message  # noqa: PT017
        error.message.encode()


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
_fields = st.dictionaries(
    st.sampled_from(AnswerRequest.__struct_fields__) | st.text(max_size=5), _json, max_size=4
)


@settings(max_examples=200)
@given(_fields)
def test_any_value_in_any_field_is_taken_or_refused_in_words(fields: dict[str, object]) -> None:
    """Any value in any field is accepted or refused with a message."""
    raw = json.dumps({"prompt": "x"} | fields).encode("utf-8", "surrogatepass")
    try:
        read(raw).check()
    except (MalformedBody, InvalidField) as error:
        assert error.message  # noqa: PT017
        error.message.encode()
