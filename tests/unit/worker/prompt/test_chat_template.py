from __future__ import annotations

import resource
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmd.engine.protocol import ChatPrompt, Message, Part
from llmd.errors import InvalidField
from llmd.worker.prompt import chat_template
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
        expected += [Part(text=content)] if content else []
        expected.append(Part(text=f"<|im_end|>\n<|im_start|>{role}\n", literal=True))
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
    source = "<|im_start|>{{ messages[0].content.split('#')[1] }}"
    assert _render(source, "a#b#c") == [Part(text="<|im_start|>b", literal=True)]
    assert _render(source, "a#<|im_end|>#c") == [
        Part(text="<|im_start|><\u200b|im_end|>", literal=True)
    ]


def test_text_that_looks_like_a_mark_is_only_text() -> None:
    """A text that looks like a mark is inserted text."""
    content = "<0123456789abcdef[x]0123456789abcdef>"
    assert Part(text=content) in _render(CHATML, content)


def test_message_that_appears_twice_is_inserted_text_both_times() -> None:
    """A template may repeat one message and leave out another."""
    parts = _render("{{ messages[0].content }}-{{ messages[0].content }}", "a", "b")
    assert parts == [Part(text="a"), Part(text="-", literal=True), Part(text="a")]


def test_template_knows_the_names_that_templates_use() -> None:
    """Templates can use bos_token, eos_token, strftime_now, loop controls and generation."""
    source = (
        "{{ bos_token }}{{ eos_token }}{{ strftime_now('%%') }}"
        "{% for m in messages %}{% if loop.index == 2 %}{% break %}{% endif %}"
        "{% generation %}{{ m.role }}{% endgeneration %}{% endfor %}"
    )
    assert _text(_render(source, "a", "b")) == "<s></s>%user"


def test_template_gives_the_reason_why_it_refuses() -> None:
    """The error of a template that calls raise_exception contains its message."""
    with pytest.raises(InvalidField, match="roles must alternate"):
        _render("{{ raise_exception('roles must alternate') }}", "a")


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ''['__class__']['__mro__'] }}",
        "{{ (''|attr('__class__')).__mro__ }}",
        "{{ '{0.__class__.__mro__}'.format('') + raise_exception.__globals__ }}",
        "{{ raise_exception.__globals__['signal'] }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].clear() }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
    ],
)
def test_template_cannot_leave_its_sandbox(source: str) -> None:
    """A template cannot reach Python's internals or files, nor change the messages."""
    with pytest.raises(InvalidField):
        _render(source, "a")


@pytest.mark.parametrize(
    "source",
    [
        "{{ [1] | dictsort }}",
        "{{ [] | first + 1 }}",
        "{{ 1 / 0 }}",
        "{{ messages['x'].y.z }}",
        "{{ 1 | list }}",
        "{{ 'a' | xmlattr }}",
        "{{ {}.popitem }}{{ '%d' % 'x' }}",
        "{{ strftime_now(1) }}",
        "{{ 'é'.encode('ascii') }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_template_with_a_mistake_refuses_the_request_alone(source: str) -> None:
    """A request is refused if its template raises any Python exception."""
    with pytest.raises(InvalidField):
        _render(source, "a")


@pytest.mark.parametrize(
    "source",
    [
        "{% for %}",
        "{{",
        "{% generation %}",
        "{{ " + "(" * 100_000 + " }}",
        "".join(f"{{% for a{n} in b %}}" for n in range(30)) + "{% endfor %}" * 30,
        "{{ 'x' | center(100000000000) }}",
    ],
    ids=["tag", "open", "generation", "deep", "nested", "constant"],
)
def test_text_that_is_no_template_is_refused(source: str) -> None:
    """A template that cannot be compiled is refused."""
    with pytest.raises(InvalidField, match="chat template"):
        _render(source, "a")


_LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}X{% endfor %}{% endfor %}"


@pytest.mark.parametrize("letter", ["", "{{ a * b }}"])
def test_endless_template_is_stopped(letter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endless template is stopped, whether it writes or not."""
    monkeypatch.setattr(chat_template, "MAX_RENDER_S", 0.1)
    with pytest.raises(InvalidField, match="too long"):
        _render(_LOOP.replace("X", letter), "a")


def test_flood_of_output_is_stopped() -> None:
    """A template that writes too much is stopped long before the memory is full."""
    with pytest.raises(InvalidField, match="writes too much"):
        _render(_LOOP.replace("X", "x" * 10_000), "a")


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'x' * 10000000000 }}",
        "{% set a = 'x' * 1000000 %}{{ a * 100000 }}",
        "{{ [0] * 1000000 * 100000 }}",
        "{{ 10 ** 100000000 }}",
        "{{ messages[0].content | center(100000000000) }}",
        "{{ '%0100000000000d' % (messages | length) }}",
        "{% set n = namespace(a='x') %}{% for i in range(60) %}{% set n.a = n.a ~ n.a %}{%endfor%}",
        "{{ ('x' * 100000) | replace('x', 'x' * 1000000) }}",
    ],
)
def test_template_cannot_fill_the_memory(source: str) -> None:
    """A request is refused if its template needs too much memory."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(InvalidField):
        _render(source, "a")
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    peak_bytes = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert peak_bytes < 1 << 30


def test_time_limit_leaves_no_alarm_behind() -> None:
    """After rendering, no timer runs and the old signal handler is back."""
    before = signal.getsignal(signal.SIGALRM)
    _render(CHATML, "a")
    with pytest.raises(InvalidField):
        _render("{{ 1 / 0 }}", "a")
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
