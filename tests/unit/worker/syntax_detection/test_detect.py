from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import pytest

from llmd.engine.protocol import Tool, Tools
from llmd.errors import InvalidField
from llmd.worker.prompt.chat_template import ChatTemplate
from llmd.worker.syntax import HERMES, ArgumentForm, CallForm, Syntax
from llmd.worker.syntax_detection.detect import detect_syntax
from tests.support import templates
from tests.support.parsing import Answer, parse, parser_of
from tests.support.templates import chat_template

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
}
TOOLS = Tools(tools=[Tool(name="weather", parameters=json.dumps(SCHEMA)), Tool(name="now")])
ARGUMENTS = {"city": "Köln", "days": 3}


def _learnt(source: str) -> tuple[Syntax, ChatTemplate]:
    template = ChatTemplate(source, bos="<s>", eos="</s>")
    return detect_syntax(source, template.probe, ends=["<|im_end|>", "<|call|>"]), template


def _rendered(template: ChatTemplate, message: Mapping[str, Any]) -> str:
    """Return what the template writes behind the prompt for an answer."""
    user = {"role": "user", "content": "?"}
    given = {"enable_thinking": True, "messages": [user]}
    prompt = template.probe({**given, "add_generation_prompt": True})
    answer = {"role": "assistant", "content": "", **message}
    whole = template.probe({**given, "messages": [user, answer], "add_generation_prompt": False})
    size = next(
        (at for at, pair in enumerate(zip(prompt, whole, strict=False)) if pair[0] != pair[1]),
        min(len(prompt), len(whole)),
    )
    return whole[size:].removesuffix("<|im_end|>\n")


def _call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "abcdefgh1",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


@pytest.mark.parametrize(
    ("calls", "form", "arguments"),
    [
        (templates.OBJECT_CALLS, CallForm.OBJECT, ArgumentForm.JSON),
        (templates.LIST_CALLS, CallForm.OBJECT, ArgumentForm.JSON),
        (templates.KEYED_CALLS, CallForm.KEYED, ArgumentForm.JSON),
        (templates.BARE_CALL, CallForm.OBJECT, ArgumentForm.JSON),
        (templates.INDEXED_CALLS, CallForm.NAMED, ArgumentForm.JSON),
        (templates.CALLS_WITH_ID, CallForm.NAMED, ArgumentForm.JSON),
        (templates.TAGGED_CALLS, CallForm.NAMED, ArgumentForm.TAGGED),
        (templates.KEY_VALUE_CALLS, CallForm.NAMED, ArgumentForm.TAGGED),
        (templates.TYPED_CALLS, CallForm.NAMED, ArgumentForm.TAGGED),
        (templates.NESTED_CALLS, CallForm.NAMED, ArgumentForm.NESTED),
        (templates.PAIRS_CALLS, CallForm.NAMED, ArgumentForm.PAIRS),
        (templates.PYTHON_CALLS, CallForm.NAMED, ArgumentForm.PAIRS),
    ],
)
def test_calls_are_read_as_the_template_writes_them(
    calls: str, form: CallForm, arguments: ArgumentForm
) -> None:
    """The form of calls is learnt from renderings, and reads other calls of the same template."""
    syntax, template = _learnt(chat_template(calls=calls))
    assert syntax.is_native
    assert (syntax.calls.form, syntax.calls.arguments) == (form, arguments)
    given = [_call("weather", ARGUMENTS), _call("now", {})]
    given = given if syntax.calls.several else given[:1]
    answer = parse(parser_of(syntax, tools=TOOLS), _rendered(template, {"tool_calls": given}))
    assert answer.text.strip() == ""
    assert [(name, json.loads(text)) for name, text in answer.calls] == [
        (call["function"]["name"], call["function"]["arguments"]) for call in given
    ]
    text = _rendered(template, {"content": "Let me see.", "tool_calls": given[:1]})
    answer = parse(parser_of(syntax, tools=TOOLS), text)
    assert answer.text.strip() == ("Let me see." if not syntax.calls.is_bare else answer.text)


@pytest.mark.parametrize("prompt", ["", "<think>\n", "{{ '<think>\\n' if enable_thinking }}"])
def test_markers_of_thoughts_are_the_templates(prompt: str) -> None:
    """The markers of thoughts are learnt, whether the prompt opens a thought or not."""
    source = chat_template(thought=templates.TAGGED_THOUGHT, prompt=prompt)
    syntax, template = _learnt(source)
    assert (syntax.thought_start, syntax.thought_end) == ("<think>\n", "\n</think>\n\n")
    begun = template.probe(
        {
            "messages": [{"role": "user", "content": "?"}],
            "add_generation_prompt": True,
            "enable_thinking": True,
        }
    )
    assert syntax.opens_thought(begun) == bool(prompt)
    parser = parser_of(syntax, tools=None, is_thinking=bool(prompt))
    opening = "" if prompt else "<think>\n"
    assert parse(parser, f"{opening}Hm\n</think>\n\nYes") == Answer(text="Yes", thought="Hm")


@pytest.mark.parametrize(
    ("prompt", "start", "end"),
    [
        ("{{ '<x>\\n\\n</x>\\n' if not enable_thinking }}", "<x>", "</x>"),
        ("{{ '<|T_START|><|T_END|>' if not enable_thinking }}", "<|T_START|>", "<|T_END|>"),
        ("{{ '<x>\\n' }}", "<x>", "</x>"),
    ],
)
def test_thoughts_that_only_the_prompt_shows_are_found(prompt: str, start: str, end: str) -> None:
    """A template that drops old thoughts shows their markers where the next answer begins."""
    syntax, _ = _learnt(chat_template(prompt=prompt))
    assert (syntax.thought_start.strip(), syntax.thought_end.strip()) == (start, end)


def test_markers_that_the_source_only_removes_are_found() -> None:
    """A template may mention markers of thoughts only to remove them from old answers."""
    source = chat_template().replace(
        "{{ message.content }}<|im_end|>\n{% endif",
        "{{ message.content.split('</think>')[-1] }}<|im_end|>\n{% endif",
    )
    syntax, _ = _learnt(source)
    assert (syntax.thought_start, syntax.thought_end) == ("<think>", "</think>")


def test_first_words_of_a_thought_in_the_prompt_belong_to_it() -> None:
    """A prompt may open a thought by words instead of a marker."""
    end = "'\\n[BEGIN FINAL RESPONSE]\\n'"
    thought = f"{{{{ message.reasoning_content ~ {end} if message.reasoning_content }}}}"
    syntax, _ = _learnt(chat_template(thought=thought, prompt="Here are my steps:\n"))
    assert syntax.opens_thought("<|im_start|>assistant\nHere are my steps:\n")
    parser = parser_of(syntax, tools=None, is_thinking=True)
    assert parse(parser, "One.\n[BEGIN FINAL RESPONSE]\nYes") == Answer(
        text="Yes", thought="Here are my steps:\nOne."
    )


def test_channels_are_found_by_the_messages_of_one_turn() -> None:
    """Thought, text and calls may be messages with headers."""
    syntax, _ = _learnt(templates.CHANNELS)
    assert syntax.channels is not None
    assert syntax.is_native
    thought = "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant"
    parser = parser_of(syntax, tools=TOOLS)
    call = " to=functions.now<|channel|>commentary json<|message|>{}<|call|>"
    assert parse(parser, thought + call) == Answer(thought="Hm", calls=[("now", "{}")])
    parser = parser_of(syntax, tools=None)
    assert parse(parser, f"{thought}<|channel|>final<|message|>Yes<|return|>") == Answer(
        text="Yes", thought="Hm"
    )


def test_prompt_may_end_with_the_first_marker_of_an_answer() -> None:
    """The end of the prompt belongs to the marker that an answer begins with."""
    syntax, _ = _learnt(templates.LEAD)
    assert syntax.lead == ">>>"
    assert parse(parser_of(syntax, tools=None), "all\nHi") == Answer(text="Hi")
    answer = parse(parser_of(syntax, tools=TOOLS), 'all\nSo.\n>>>weather\n{"days": 1}>>>now\n{}')
    assert answer.calls == [("weather", '{"days": 1}'), ("now", "{}")]
    assert answer.text.strip() == "So."


@pytest.mark.parametrize(
    "source",
    [
        chat_template(),
        chat_template(calls=templates.each_call("{{ f.name | upper }}: {{ f.arguments }}")),
        chat_template(calls=templates.each_call("<c>{{ f.arguments }}</c>")),
        chat_template(calls="{{ raise_exception('no') if message.tool_calls }}"),
        "{{ messages[0].content }}",
        "{{ raise_exception('no') }}",
    ],
    ids=["none", "upper", "nameless", "refused", "no roles", "nothing"],
)
def test_template_whose_calls_cannot_be_read_back_gets_the_general_form(source: str) -> None:
    """A form is taken only if the parser reads the template's own calls with it."""
    syntax, _ = _learnt(source)
    assert not syntax.is_native
    assert syntax.calls == HERMES.calls


def test_model_without_a_template_has_the_general_syntax() -> None:
    """A model without a template neither thinks nor writes calls in a form of its own."""
    assert detect_syntax(None, None) == HERMES
    assert HERMES.is_plain


def test_template_that_writes_calls_but_no_tools_has_both_forms() -> None:
    """Such a model is told the general form, and may still write the one that it knows."""
    source = chat_template(calls=templates.INDEXED_CALLS).replace("{{ tools | tojson }}", "")
    syntax, _ = _learnt(source)
    assert not syntax.is_native
    native = "<|calls_begin|><|call_begin|>functions.now:0<|argument_begin|>{}<|call_end|>"
    for text in (f"{native}<|calls_end|>", '<tool_call>\n{"name": "now"}\n</tool_call>'):
        assert parse(parser_of(syntax, tools=TOOLS), text) == Answer(calls=[("now", "{}")])


def test_analysis_of_a_slow_template_ends_in_time() -> None:
    """A template that takes long for each rendering is analysed only as far as time allows."""
    num_rendered = 0

    def render(_values: Mapping[str, Any]) -> str:
        nonlocal num_rendered
        num_rendered += 1
        until = time.process_time() + 0.3
        while time.process_time() < until:
            pass
        raise InvalidField("no")

    assert not detect_syntax("", render).is_native
    assert num_rendered <= 5
