"""What a template can do is found out by rendering it."""

from __future__ import annotations

from typing import Any

import pytest

from llmd.worker.prompt import capabilities
from llmd.worker.prompt.capabilities import Capabilities
from llmd.worker.prompt.chat_template import ChatTemplate

PLAIN = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>"
TOOLS = "{% for t in tools %}{{ t | tojson }}{% endfor %}"
CALLS = "{% for c in m.tool_calls %}<call>{{ c.function | tojson }}{% endfor %}"
WITH_TOOLS = TOOLS + PLAIN.replace("{{ m.content }}", "{{ m.content }}" + CALLS)
ALTERNATING = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}[{{ m.content }}]{% endfor %}"
)
"""Like Gemma 2's."""


def _found(source: str) -> Capabilities:
    return ChatTemplate(source, bos="<s>", eos="</s>").capabilities


def test_a_template_without_limits_takes_everything() -> None:
    """The capabilities of a plain template are the defaults, without tools and thoughts."""
    assert _found(PLAIN) == Capabilities()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        # A text in place of parts is iterated letter by letter, and shows nothing.
        (
            (
                "{% for m in messages %}{% for p in m.content %}{% if p.type == 'text' %}"
                "{{ p.text }}{% endif %}{% endfor %}{% endfor %}"
            ),
            {"typed_roles": frozenset({"user", "assistant", "system"})},
        ),
        (
            (
                "{% for m in messages %}{% if m.role == 'user' %}{{ m.content[0]['text'] }}"
                "{% else %}{{ m.content }}{% endif %}{% endfor %}"
            ),
            {"typed_roles": frozenset({"user"})},
        ),
        (
            ALTERNATING,
            {
                "system": "none",
                "several_systems": False,
                "joined_roles": frozenset({"user", "assistant"}),
                "assistant_first": False,
            },
        ),
        (
            (
                "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}"
                "{% for m in messages %}{% if m.role != 'system' %}{{ m.content }}{% endif %}"
                "{% endfor %}"
            ),
            {"system": "first", "several_systems": False},
        ),
        ("{{ messages[0].content }}", {"shows_history": False}),
        ("{{ messages | length }}", {"shows_user": False, "shows_history": False}),
    ],
    ids=["typed", "typed_user", "alternating", "system_first", "one_message", "nothing"],
)
def test_order_and_form_of_messages_are_found(source: str, expected: dict[str, Any]) -> None:
    """The form of contents, and which messages may follow each other, are found out."""
    found = _found(source)
    assert {name: getattr(found, name) for name in expected} == expected


def test_a_template_that_refuses_everything_gives_its_reason_later() -> None:
    """A template that refuses a message is not said to leave it out."""
    found = _found("{{ raise_exception('never') }}")
    assert found.shows_user
    assert found.shows_history


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (WITH_TOOLS, {"tools_variable": "tools", "arguments": "object", "parallel_calls": True}),
        (WITH_TOOLS.replace(TOOLS, "{{ functions }}"), {"tools_variable": "functions"}),
        (
            WITH_TOOLS.replace(TOOLS, "{{ 'Functions: ' + functions }}"),
            {"tools_variable": "functions", "tools_as_text": True, "needs_tools": True},
        ),
        (
            WITH_TOOLS.replace("c.function | tojson", "c.function.name + c.function.arguments"),
            {"arguments": "text"},
        ),
        # A mapping would be written as Python writes it.
        (
            WITH_TOOLS.replace("c.function | tojson", "c.function.name }}{{ c.function.arguments"),
            {"arguments": "text"},
        ),
        (
            WITH_TOOLS.replace(
                "c.function | tojson",
                "c.function.name }}{% for k, v in c.function.arguments.items() %}"
                "{{ k }}={{ v }}{% endfor %}{{ ''",
            ),
            {"arguments": "object", "text_arguments": False},
        ),
        (
            WITH_TOOLS.replace(
                CALLS,
                "{% if m.tool_calls and m.tool_calls | length > 1 %}"
                "{{ raise_exception('one call at once') }}{% endif %}" + CALLS,
            ),
            {"parallel_calls": False},
        ),
        (
            WITH_TOOLS.replace(
                CALLS,
                CALLS + "{% if m.tool_call_id and m.tool_call_id | length != 9 %}"
                "{{ raise_exception('bad id') }}{% endif %}",
            ),
            {"long_call_ids": False},
        ),
        (
            WITH_TOOLS.replace("{{ m.content }}", "{{ m.content if m.content }}").replace(
                CALLS, "{% if not m.content %}" + CALLS + "{% endif %}"
            ),
            {"splits_text": "always"},
        ),
        (
            WITH_TOOLS.replace(TOOLS, "{% if tools %}{{ tools[0].function.name }}{% endif %}"),
            {"tools_variable": ""},
        ),
        (WITH_TOOLS.replace(CALLS, ""), {"tools_variable": ""}),
    ],
    ids=[
        *("native", "functions", "as_text", "text_arguments", "python", "items", "one_call"),
        *("short_ids", "split", "no_description", "no_calls"),
    ],
)
def test_forms_of_tools_and_calls_are_found(source: str, expected: dict[str, Any]) -> None:
    """How a template takes tools, calls, arguments and ids is found out."""
    found = _found(source)
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("shown", "form"),
    [
        ("<think>{{ m.reasoning_content }}</think>{{ m.content }}", "reasoning_content"),
        ("{{ m.thinking }}{{ m.content }}", "thinking"),
        ("{% if loop.last %}{{ m.reasoning }}{% endif %}{{ m.content }}", "reasoning"),
        (
            (
                "{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
                "{{ p.thinking if p.type == 'thinking' else p.text }}{% endfor %}{% endif %}"
            ),
            "part",
        ),
        ("{{ m.content }}", ""),
        ("{{ m.content | tojson }}", ""),
    ],
)
def test_the_form_of_thoughts_is_found(shown: str, form: str) -> None:
    """A thought is taken in a field or as a part, and parts that are only dumped do not count."""
    assert _found(PLAIN.replace("{{ m.content }}", shown)).reasoning == form


def test_a_template_that_takes_too_long_keeps_what_was_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After the time limit no more is found out, and the defaults hold."""
    monkeypatch.setattr(capabilities, "MAX_PROBE_S", -1.0)
    assert _found(ALTERNATING) == Capabilities()
