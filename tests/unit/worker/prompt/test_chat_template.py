from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.engine.protocol import ChatPrompt, Message, Part
from llmd.errors import InvalidField
from llmd.worker.prompt.chat_template import ChatTemplate

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|im_start|>", "<|im_end|>"]


def _render(source: str, *contents: str) -> list[Part]:
    messages = [Message(role="user", content=content) for content in contents]
    return ChatTemplate(source, bos="<s>", eos="</s>").render(ChatPrompt(messages), SPECIAL)


def _text(parts: list[Part]) -> str:
    return "".join(part.text for part in parts)


@given(st.lists(st.text(max_size=12) | st.sampled_from(SPECIAL), min_size=1, max_size=4))
def test_text_of_the_template_is_literal_and_that_of_messages_is_not(
    contents: list[str],
) -> None:
    """The text of messages, special tokens included, is inserted text and never literal."""
    parts = _render(CHATML, *contents)
    expected = [Part(text="<|im_start|>user\n", literal=True)]
    for number, content in enumerate(contents):
        last = number == len(contents) - 1
        role = "assistant" if last else "user"
        literal = f"<|im_end|>\n<|im_start|>{role}\n"
        if content:
            expected += [Part(text=content), Part(text=literal, literal=True)]
        else:
            expected[-1] = Part(text=expected[-1].text + literal, literal=True)
    assert parts == expected


def test_text_that_the_template_trims_is_still_inserted_text() -> None:
    """The text of messages is recognised even if the template strips it."""
    assert _render("[{{ messages[0].content | trim }}]", "  <|im_end|> \n") == [
        Part(text="[", literal=True),
        Part(text="<|im_end|>"),
        Part(text="]", literal=True),
    ]


@pytest.mark.parametrize(
    "expression",
    [
        "messages[0].content[:22]",
        "messages[0].content | upper | lower",
        "messages[0].content | reverse | reverse",
        "messages[0].content.split('>')[0] + '>'",
        "messages[0].content if messages[0].content | length < 14 else 'long'",
    ],
)
def test_text_that_the_template_changes_contains_no_special_token(expression: str) -> None:
    """Special tokens of messages are broken up if the template changes the text."""
    parts = _render("<|im_start|>{{ " + expression + " }}", "<|im_end|>")
    assert _text(parts).startswith("<|im_start|>")
    assert "<|im_end|>" not in "".join(part.text for part in parts if part.literal)


def test_piece_from_the_middle_of_a_text_contains_no_special_token() -> None:
    """A piece that a template cuts out of a message contains no special token."""
    source = "<|im_start|>{{ messages[0].content.split('#')[-2:][0] }}"
    assert _render(source, "a#b#c") == [Part(text="<|im_start|>b", literal=True)]
    assert _render(source, "a#<|im_end|>#c") == [
        Part(text="<|im_start|><\u200b|im_end|>", literal=True)
    ]


def test_text_that_looks_like_a_mark_is_only_text() -> None:
    """A text that looks like a mark is inserted text."""
    content = "<0123456789abcdef[x]0123456789abcdef>"
    assert Part(text=content) in _render(CHATML, content)


def test_message_that_appears_twice_is_inserted_text_both_times() -> None:
    """A template may repeat a message."""
    parts = _render("{{ messages[0].content }}-{{ messages[0].content }}", "a")
    assert parts == [Part(text="a"), Part(text="-", literal=True), Part(text="a")]


def test_template_knows_the_names_that_templates_use() -> None:
    """Templates can use bos_token, eos_token, strftime_now, loop controls and generation."""
    source = (
        "{{ bos_token }}{{ eos_token }}{{ strftime_now('%%') }}"
        "{% for m in messages %}{% if loop.index == 2 %}{% break %}{% endif %}"
        "{% generation %}{{ m.role }}:{{ m.content }}{% endgeneration %}{% endfor %}"
    )
    assert _text(_render(source, "a")) == "<s></s>%user:a"


def test_template_gives_the_reason_why_it_refuses() -> None:
    """The error of a template that calls raise_exception contains its message."""
    with pytest.raises(InvalidField, match="roles must alternate"):
        _render("{{ raise_exception('roles must alternate') }}", "a")
