"""Prompts that end within their last message, and the thoughts of earlier answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.engine.protocol import ChatPrompt, Ending, Message, Part, Tool, Tools
from llmd.errors import InvalidField
from llmd.worker.prompt.chat_template import ChatTemplate

SPECIAL = ["<|im_start|>", "<|im_end|>", "<think>", "</think>"]
OPENS = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    + OPENS
)
THINKS = CHATML.replace(
    "{{ m.content }}",
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content | trim }}\n</think>\n{% endif %}"
    "{{ m.content | trim }}",
)
"""Like Qwen3's: shows thoughts, and strips texts."""

DROPS = CHATML.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}").replace(
    OPENS, OPENS.replace("assistant\n", "assistant\n<think>\n")
)
"""Like DeepSeek R1's: drops thoughts, and opens one for each answer."""

USER = Message(role="user", content="Why?")


def _parts(source: str, *messages: Message, ending: Ending = "answer") -> list[Part]:
    prompt = ChatPrompt(list(messages), ending=ending)
    return ChatTemplate(source, bos="", eos="").render(prompt, SPECIAL)


def _text(source: str, *messages: Message, ending: Ending = "answer") -> str:
    return "".join(part.text for part in _parts(source, *messages, ending=ending))


def _answer(content: str = "", reasoning: str = "") -> Message:
    return Message(role="assistant", content=content, reasoning=reasoning)


# Thoughts of earlier answers


def test_the_thought_of_an_earlier_answer_is_in_the_prompt() -> None:
    """A thought is shown where the template writes it, and nowhere else."""
    messages = (USER, _answer("Because.", "\nHm.\n"), USER)
    assert "assistant\n<think>\nHm.\n</think>\nBecause.<|im_end|>" in _text(THINKS, *messages)
    assert "Hm." not in _text(CHATML, *messages)


@given(st.text(max_size=8) | st.sampled_from([*SPECIAL, " <|im_end|> ", "\n</think>\n"]))
def test_a_thought_is_text_and_never_literal(thought: str) -> None:
    """No special token in a thought is literal: its text depends on what users wrote."""
    parts = _parts(THINKS, USER, _answer("Because.", thought), USER)
    literal = "".join(part.text for part in parts if part.literal)
    assert literal.count("<|im_end|>") == 3
    assert literal.count("</think>") == bool(thought)
    if thought.strip():
        assert Part(text=thought.strip()) in parts


# Endings


def test_a_prompt_may_open_no_new_answer() -> None:
    """With the ending `nothing`, the prompt ends after its last message."""
    assert _text(CHATML, USER, ending="nothing") == "<|im_start|>user\nWhy?<|im_end|>\n"


@pytest.mark.parametrize("source", [CHATML, THINKS])
def test_the_text_of_the_last_message_is_continued(source: str) -> None:
    """The prompt ends with the text of the last message, with its spaces and no end of a turn."""
    expected = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\nBecause "
    assert _text(source, USER, _answer("Because "), ending="content") == expected


def test_the_text_is_continued_behind_its_thought() -> None:
    """A message with a thought is continued in its text."""
    text = _text(THINKS, USER, _answer("Because", "Hm."), ending="content")
    assert text.endswith("<think>\nHm.\n</think>\nBecause")


def test_a_thought_is_continued() -> None:
    """With the ending `reasoning`, the prompt ends within the thought."""
    text = _text(THINKS, USER, _answer(reasoning="Hm, "), ending="reasoning")
    assert text.endswith("<|im_start|>assistant\n<think>\nHm, ")


def test_a_thought_is_continued_where_the_template_opens_one_but_shows_none() -> None:
    """A template that drops thoughts and opens one for each answer continues it there."""
    text = _text(DROPS, USER, _answer(reasoning="Hm, "), ending="reasoning")
    assert text.endswith("<|im_start|>assistant\n<think>\nHm, ")


def test_a_thought_is_not_continued_behind_an_empty_one() -> None:
    """A template that begins an answer with an empty thought has no place for another."""
    closes = DROPS.replace("<think>\n", "<think></think>")
    with pytest.raises(InvalidField, match="cannot be continued"):
        _text(closes, USER, _answer(reasoning="Hm"), ending="reasoning")


def test_a_thought_is_not_continued_where_the_template_has_none() -> None:
    """A template without thoughts gets an error that names the field."""
    with pytest.raises(InvalidField, match="cannot be continued") as caught:
        _text(CHATML, USER, _answer(reasoning="Hm"), ending="reasoning")
    assert caught.value.param == "continue_final_message"


def test_a_template_that_shows_no_last_answer_begins_one() -> None:
    """The text follows the beginning of a new answer if the template leaves the message out."""
    hides = CHATML.replace(
        "{% for m in messages %}",
        "{% for m in messages %}{% if loop.last and m.role == 'assistant' %}{% break %}{% endif %}",
    )
    text = _text(hides, USER, _answer("Because"), ending="content")
    assert text == _text(CHATML, USER, _answer("Because"), ending="content")


@given(st.text(min_size=1, max_size=8) | st.sampled_from(SPECIAL))
def test_text_that_is_continued_is_never_literal(content: str) -> None:
    """Special tokens in the text of the last message stay text."""
    parts = _parts(CHATML, USER, _answer(content), ending="content")
    assert parts[-1] == Part(text=content)


# Variables and errors


def test_a_template_that_needs_enable_thinking_gets_true() -> None:
    """A template that closes each thought without the variable gets it, unless a request does."""
    needs = DROPS.replace("<think>\n", "<think>\n{% if not enable_thinking %}</think>{% endif %}")
    template = ChatTemplate(needs, bos="", eos="")

    def rendered(variables: str) -> str:
        prompt = ChatPrompt([USER], variables=variables)
        return "".join(part.text for part in template.render(prompt, []))

    assert rendered("{}").endswith("<think>\n")
    assert rendered('{"enable_thinking": false}').endswith("</think>")


def test_a_template_with_a_default_for_enable_thinking_keeps_it() -> None:
    """A template that tests whether the variable is defined decides for itself."""
    decides = DROPS.replace(
        "<think>\n",
        "<think>\n{% if not (enable_thinking is defined and enable_thinking) %}</think>{% endif %}",
    )
    assert _text(decides, USER).endswith("</think>")


def test_the_effort_of_reasoning_has_two_names() -> None:
    """Templates read `reasoning_effort` or `reasoning_strength`."""
    source = CHATML + "{{ reasoning_effort }}-{{ reasoning_strength }}"
    prompt = ChatPrompt([USER], variables='{"reasoning_effort": "low"}')
    parts = ChatTemplate(source, bos="", eos="").render(prompt, [])
    assert parts[-1].text.endswith("low-low")


def test_an_error_names_the_message_that_is_refused() -> None:
    """The error names the first message that the template does not take."""
    source = (
        "{% for m in messages %}{% if m.content == 'bad' %}{{ raise_exception('bad word') }}"
        "{% endif %}{{ m.content }}{% endfor %}"
    )
    messages = (USER, _answer("So."), Message(role="user", content="bad"), _answer("So."), USER)
    with pytest.raises(InvalidField, match=r"bad word \(at message 3 of 5 \(user\)\)") as caught:
        _text(source, *messages)
    assert caught.value.param == "messages"


def test_tools_reach_a_template_without_a_system_role() -> None:
    """The text about tools comes before the first question if there is no system role."""
    source = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
        "<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    )
    prompt = ChatPrompt([USER], Tools(tools=[Tool(name="clock")]))
    text = "".join(part.text for part in ChatTemplate(source, bos="", eos="").render(prompt, []))
    assert text.startswith("<|user|>You have tools.")
    assert '"clock"' in text
    assert text.endswith("Why?")
