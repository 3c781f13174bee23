"""Messages in the form that a template takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.engine.protocol import Call, Message, Role, Tool, Tools
from llmd.errors import InvalidField
from llmd.worker.prompt.capabilities import Capabilities
from llmd.worker.prompt.forms import fit_messages, message_dicts, tool_dicts, tool_values

SCHEMA = '{"type": "object", "properties": {"city": {"type": "string"}}}'
TOOLS = Tools(
    tools=[Tool(name="weather", description="Wetter für <b>", parameters=SCHEMA), Tool(name="now")]
)
USER = Message(role="user", content="Is it warm?", turn=3)
ANY = Capabilities()


def _call(arguments: str = '{"city": "Köln"}', call_id: str = "call_1") -> Call:
    return Call(name="weather", arguments=arguments, id=call_id)


def _result(content: str, call_id: str = "call_1") -> Message:
    return Message(role="tool", content=content, call_id=call_id, name="weather")


def _dicts(messages: list[Message], can: Capabilities = ANY) -> list[dict[str, Any]]:
    return message_dicts(messages, can)


def _said(*texts: str) -> list[Message]:
    """Return messages from texts such as `user: hi`."""
    roles: dict[str, Role] = {
        "system": "system",
        "user": "user",
        "assistant": "assistant",
        "tool": "tool",
    }
    found = []
    for text in texts:
        role, _, content = text.partition(": ")
        found.append(Message(role=roles[role], content=content))
    return found


def _fitted(can: Capabilities, *texts: str) -> list[str]:
    return [f"{one.role}: {one.content}" for one in fit_messages(_said(*texts), can)]


# The order of messages


def test_messages_that_the_template_takes_stay_as_they_are() -> None:
    """A template that takes everything gets the messages unchanged."""
    texts = ["system: a", "system: b", "user: c", "user: d", "system: e", "assistant: f"]
    assert _fitted(ANY, *texts) == texts


def test_leading_system_texts_are_joined_for_a_template_that_takes_one() -> None:
    """Several system messages at the beginning become one."""
    can = Capabilities(several_systems=False)
    assert _fitted(can, "system: a", "system: b", "user: c") == ["system: a\n\nb", "user: c"]


def test_a_later_system_text_becomes_a_users_message() -> None:
    """A template that takes a system message only first gets the others from the user."""
    can = Capabilities(system="first", joined_roles=frozenset({"user"}))
    assert _fitted(can, "system: a", "user: b", "assistant: c", "system: d", "user: e") == [
        *("system: a", "user: b", "assistant: c", "user: d\n\ne"),
    ]


def test_without_a_system_role_its_text_comes_before_the_first_question() -> None:
    """A template that refuses a system message gets its text in the first message of the user."""
    can = Capabilities(system="none")
    assert _fitted(can, "system: a", "system: b", "user: c") == ["user: a\n\nb\n\nc"]
    assert _fitted(can, "system: a", "assistant: c") == ["user: a", "assistant: c"]
    assert _fitted(can, "system: a") == ["user: a"]


def test_messages_that_must_not_follow_each_other_are_joined() -> None:
    """Two messages of a role become one, where a template demands that roles alternate."""
    can = Capabilities(joined_roles=frozenset({"user", "assistant"}))
    assert _fitted(can, "user: a", "user: b", "assistant: c", "assistant: d") == [
        *("user: a\n\nb", "assistant: c\n\nd"),
    ]


def test_a_conversation_that_must_begin_with_the_user_gets_an_empty_question() -> None:
    """An answer at the beginning follows an empty message of the user."""
    can = Capabilities(assistant_first=False)
    assert _fitted(can, "system: a", "assistant: b") == ["system: a", "user: ", "assistant: b"]


def test_a_user_who_writes_after_a_result_gets_an_empty_answer_first() -> None:
    """Where a user must not write after a result, an empty answer comes between them."""
    can = Capabilities(user_after_result=False)
    assert _fitted(can, "tool: a", "user: b") == ["tool: a", "assistant: ", "user: b"]


def test_several_calls_become_messages_of_their_own_with_their_results() -> None:
    """A template that takes one call at a time gets each call with its own result."""
    one, two = _call(call_id="1"), _call(call_id="2")
    messages = [
        Message(role="assistant", content="I look.", reasoning="Hm.", calls=[one, two]),
        _result("second", "2"),
        _result("first", "1"),
        _result("lost", "3"),
        USER,
    ]
    assert fit_messages(messages, Capabilities(parallel_calls=False)) == [
        Message(role="assistant", content="I look.", reasoning="Hm.", calls=[one]),
        _result("first", "1"),
        Message(role="assistant", content="", calls=[two]),
        _result("second", "2"),
        _result("lost", "3"),
        USER,
    ]


def test_a_text_that_cannot_stand_beside_calls_is_a_message_before_them() -> None:
    """The text of a message becomes a message of its own, and the thought stays with the calls."""
    message = Message(role="assistant", content="I look.", reasoning="Hm.", calls=[_call()])
    split = [
        Message(role="assistant", content="I look."),
        Message(role="assistant", content="", reasoning="Hm.", calls=[_call()]),
    ]
    assert fit_messages([message], Capabilities(splits_text="always")) == split
    assert fit_messages([message], Capabilities(splits_text="beside_thoughts")) == split
    plain = [Message(role="assistant", content="I look.", calls=[_call()])]
    assert fit_messages(plain, Capabilities(splits_text="beside_thoughts")) == plain


def test_a_message_that_would_be_left_out_is_refused_by_name() -> None:
    """The error names the first message that the template does not show."""
    can = Capabilities(shows_history=False)
    assert _fitted(can, "system: a", "user: b") == ["system: a", "user: b"]
    with pytest.raises(InvalidField, match=r"message 3 of 4 \(assistant\)") as caught:
        _fitted(can, "system: a", "user: b", "assistant: c", "user: d")
    assert caught.value.param == "messages"
    with pytest.raises(InvalidField, match=r"message 1 of 1 \(user\)"):
        _fitted(Capabilities(shows_user=False), "user: b")


_CAPABILITIES = st.builds(
    Capabilities,
    system=st.sampled_from(["anywhere", "first", "none"]),
    several_systems=st.booleans(),
    joined_roles=st.frozensets(st.sampled_from(["user", "assistant"])),
    assistant_first=st.booleans(),
    user_after_result=st.booleans(),
    parallel_calls=st.booleans(),
    splits_text=st.sampled_from(["never", "beside_thoughts", "always"]),
)
_WORDS = st.text("abcdefgh", min_size=1, max_size=3)
_MESSAGES = st.builds(
    lambda role, text, thought, ids: Message(
        role=role,
        content=text,
        reasoning=thought if role == "assistant" else "",
        calls=[_call(call_id=one) for one in ids] if role == "assistant" else [],
        call_id=ids[0] if role == "tool" and ids else "",
    ),
    st.sampled_from(["system", "user", "assistant", "tool"]),
    _WORDS,
    _WORDS,
    st.lists(st.sampled_from(["1", "2", "3"]), max_size=3, unique=True),
)


def _letters(messages: list[Message]) -> tuple[list[str], int]:
    texts = sorted("".join(one.content + one.reasoning for one in messages).replace("\n", ""))
    return texts, sum(len(one.calls) for one in messages)


@given(st.lists(_MESSAGES, min_size=1, max_size=8), _CAPABILITIES)
def test_no_form_loses_any_text_or_call(messages: list[Message], can: Capabilities) -> None:
    """Whatever the template takes, all texts, thoughts and calls are in the messages."""
    assert _letters(fit_messages(messages, can)) == _letters(messages)


# The form of a message


def test_content_is_a_list_of_parts_for_a_template_that_takes_only_those() -> None:
    """The roles that need it have their text in a part."""
    typed = Capabilities(typed_roles=frozenset({"user"}))
    assert _dicts(_said("system: a", "user: b"), typed) == [
        {"role": "system", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": "b"}]},
    ]


@pytest.mark.parametrize(
    ("form", "given"),
    [
        ("", {"content": "Yes."}),
        ("reasoning_content", {"content": "Yes.", "reasoning_content": "Hm."}),
        ("thinking", {"content": "Yes.", "thinking": "Hm."}),
        (
            "part",
            {
                "content": [
                    {"type": "thinking", "thinking": "Hm."},
                    {"type": "text", "text": "Yes."},
                ]
            },
        ),
    ],
)
def test_a_thought_is_given_in_the_form_that_is_shown(form: Any, given: dict[str, Any]) -> None:
    """A thought is a field of the message, or a part of its content."""
    message = Message(role="assistant", content="Yes.", reasoning="Hm.")
    assert _dicts([message], Capabilities(reasoning=form)) == [{"role": "assistant", **given}]


def test_arguments_are_text_for_a_template_that_takes_text() -> None:
    """A template that writes arguments as they are gets them as JSON text."""
    message = Message(role="assistant", content="", calls=[_call(), _call("")])
    [given] = _dicts([message], Capabilities(arguments="text"))
    assert [call["function"]["arguments"] for call in given["tool_calls"]] == [
        '{"city": "Köln"}',
        "{}",
    ]


@pytest.mark.parametrize(
    ("text", "value"), [("[1]", [1]), ('{"a": ', '{"a": '), ("5", 5), ("", {})]
)
def test_arguments_that_are_no_object_are_put_into_one(text: str, value: object) -> None:
    """A template that takes only objects gets other arguments as the value of an object."""
    message = Message(role="assistant", content="", calls=[_call(text)])
    [given] = _dicts([message], Capabilities(text_arguments=False))
    expected = value if isinstance(value, dict) else {"arguments": value}
    assert given["tool_calls"][0]["function"]["arguments"] == expected


def test_ids_are_given_as_they_are_where_the_template_takes_any() -> None:
    """A template that shows ids shows those of the client."""
    [given] = _dicts([_result("20°")])
    assert given["tool_call_id"] == "call_1"


def test_tools_are_given_in_the_variable_that_the_template_reads() -> None:
    """Some templates read another variable than `tools`, as JSON text, and cannot do without."""
    assert tool_values(TOOLS, ANY) == {}
    assert tool_values(TOOLS, Capabilities(tools_variable="tools")) == {"tools": tool_dicts(TOOLS)}
    assert tool_values(None, Capabilities(tools_variable="tools")) == {}
    functions = Capabilities(tools_variable="functions", tools_as_text=True, needs_tools=True)
    assert json.loads(tool_values(TOOLS, functions)["functions"]) == tool_dicts(TOOLS)
    assert tool_values(None, functions) == {"functions": "[]"}


def test_calls_are_given_to_templates_with_arguments_as_objects() -> None:
    """Templates get a call's type, its function and its arguments as a mapping."""
    message = Message(role="assistant", content="", calls=[_call(call_id="abcDEF123")])
    assert _dicts([message]) == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "abcDEF123",
                    "type": "function",
                    "function": {"name": "weather", "arguments": {"city": "Köln"}},
                }
            ],
        }
    ]


@pytest.mark.parametrize(
    ("text", "given"),
    [("", {}), ("{}", {}), ("[1]", "[1]"), ('{"a": ', '{"a": '), ("[" * 99_999, "[" * 99_999)],
)
def test_arguments_that_are_not_an_object_are_given_as_text(text: str, given: object) -> None:
    """The arguments of a call that was cut off or malformed stay text."""
    message = Message(role="assistant", content="", calls=[_call(text)])
    (shown,) = _dicts([message])
    calls = shown["tool_calls"]
    assert isinstance(calls, list)
    assert calls[0]["function"]["arguments"] == given


def test_result_has_the_id_of_its_call_in_a_form_that_all_templates_take() -> None:
    """An id becomes nine letters and digits, the same for a call and its result."""
    messages = [Message(role="assistant", content="", calls=[_call()]), _result("20°")]
    asked, told = _dicts(messages, Capabilities(long_call_ids=False))
    calls = asked["tool_calls"]
    assert isinstance(calls, list)
    assert told == {
        "role": "tool",
        "content": "20°",
        "tool_call_id": calls[0]["id"],
        "name": "weather",
    }
    assert len(calls[0]["id"]) == 9
    assert calls[0]["id"].isalnum()


def test_message_without_calls_has_no_key_for_them() -> None:
    """A message without calls has no key for them, since templates check only for the key."""
    assert _dicts([USER]) == [{"role": "user", "content": "Is it warm?"}]


def test_tools_have_the_form_of_openai() -> None:
    """Tools are in OpenAI's format; without parameters a tool takes an empty object."""
    assert tool_dicts(TOOLS) == [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "description": "Wetter für <b>",
                "parameters": json.loads(SCHEMA),
            },
        },
        {
            "type": "function",
            "function": {
                "name": "now",
                "description": "",
                "parameters": {"type": "object", "properties": {}},
            },
        },
    ]
