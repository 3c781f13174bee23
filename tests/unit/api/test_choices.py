from __future__ import annotations

import pytest

from llmd.api import body
from llmd.api.openai.chat import ChatBody
from llmd.errors import InvalidField


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("tool_choice", "perhaps", "any, auto, none, required"),
        ("response_format", {"type": "xml"}, "json_object, json_schema, text"),
        ("messages", [{"role": "god", "content": ""}], "assistant, developer, function"),
    ],
)
def test_a_word_that_is_none_of_few_is_answered_with_the_few(
    field: str, value: object, words: str
) -> None:
    """In a union, in a struct within one, and in a list."""
    given = {"model": "m", "messages": [{"role": "user", "content": "hi"}]} | {field: value}
    with pytest.raises(InvalidField, match=f"must be one of {words}") as refused:
        body.convert(given, ChatBody)
    assert refused.value.param is not None
    assert refused.value.param.startswith(field)
