"""Templates cannot leave their sandbox, nor take more than their share of time and memory."""

from __future__ import annotations

import resource
from datetime import datetime

import pytest

from llmd.errors import InvalidField
from llmd.worker.prompt import sandbox
from llmd.worker.prompt.sandbox import Template


def _render(source: str, *contents: str) -> str:
    messages = [{"role": "user", "content": content} for content in contents]
    return Template(source, bos="<s>", eos="</s>").render({"messages": messages})


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
    monkeypatch.setattr(sandbox, "MAX_RENDER_S", 0.1)
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


def test_a_template_may_change_lists_that_it_made_itself() -> None:
    """A template may collect the ids of calls in a list, but not change the messages."""
    source = "{% set ids = [] %}{{ ids.append('x') or '' }}{{ ids.pop(0) }}{{ ids | length }}"
    assert _render(source, "a") == "x0"
    with pytest.raises(InvalidField):
        _render("{{ messages.append(1) }}", "a")


def test_a_template_knows_the_date_in_two_forms() -> None:
    """Some templates state a date of years ago unless `date_string` or `datetime` is given."""
    now = datetime.now().astimezone()
    assert _render("{{ date_string }}|{{ datetime }}", "a") == (f"{now:%d %b %Y}|{now:%b %d %Y}")


def test_json_is_written_without_sorting_or_escaping() -> None:
    """JSON keeps the order and letters that models were trained on; iterators become lists."""
    assert _render("{{ {'b': '<ä>', 'a': [1]} | tojson }}", "a") == '{"b": "<ä>", "a": [1]}'
    assert _render("{{ messages | map(attribute='role') | tojson }}", "a") == '["user"]'


def test_a_variable_is_needed_if_the_template_has_no_default_for_it() -> None:
    """A variable is needed unless the template tests whether it is defined or has a default."""

    def needs(source: str) -> bool:
        return Template(source, bos="", eos="").needs("x", {})

    assert needs("{% if not x %}a{% endif %}")
    assert not needs("{% if x is defined and x %}a{% endif %}")
    assert not needs("{% if x | default(false) %}a{% endif %}")
    assert not needs("a")
    assert not needs("{{ raise_exception('no') }}{{ x }}")
