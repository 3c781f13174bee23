"""Write grammars that constrain an answer to text and well-formed tool calls, for llguidance.

Its language is Lark with additions: ``%json {…}`` is a value that a schema describes,
``<[1,4-6]>`` is one token of these ids, and a rule with ``[lazy]`` ends as early as it can. Text
never matches a special token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from llmd.engine.protocol import Tools
from llmd.worker.grammar.calls import CallRules
from llmd.worker.grammar.rules import Rules, literal
from llmd.worker.syntax import HERMES, SLOT, Channels, Syntax


def tool_grammar(
    tools: Tools,
    syntax: Syntax,
    *,
    special: Mapping[str, int],
    is_thinking: bool = False,
    strict: bool = True,
) -> str:
    """Return a grammar for an answer that may call tools, or must if `Tools.required`.

    If no call is required, text may precede the calls. Nothing may follow them. `special` are the
    ids of the model's special tokens by spelling. If `is_thinking`, the prompt ends with an open
    thought, which has to end before the calls. Without `strict`, any JSON object is allowed as
    arguments, for schemas that llguidance cannot enforce. Raise `InvalidField` for a schema that
    is not a JSON object.
    """
    rules = Rules(special)
    calls = CallRules(rules, tools, syntax.calls, strict=strict)
    if syntax.channels is not None:
        start = _ChannelAnswer(rules, calls, tools, syntax.channels).start()
    else:
        start = _Answer(rules, calls, tools, syntax).start(is_thinking=is_thinking)
    rules.add("start", start)
    return rules.text()


def has_opening(syntax: Syntax, *, is_thinking: bool) -> bool:
    """Return whether something precedes the text of an answer."""
    return is_thinking or syntax.channels is not None or bool(syntax.lead)


def constraint_grammar(
    grammar: str, syntax: Syntax, *, special: Mapping[str, int], is_thinking: bool
) -> str:
    """Return a grammar in Lark with what precedes the text of an answer before its rule `start`.

    That is the rest of a thought that the prompt opened, and a marker or header of the text where
    the prompt does not contain it yet.
    """
    rules = Rules(special)
    opening = ""
    if syntax.channels is not None:
        channels = syntax.channels
        thought = rules.marker(f"{channels.thought_header}{channels.message}")
        end = rules.text_up_to("end_of_thought", channels.ends[0], excluded=None)
        header = rules.marker(f"{channels.content_header}{channels.message}")
        opening = f"({thought} {end} {rules.marker(channels.start)})? {header}"
    elif is_thinking:
        end = rules.text_up_to("end_of_thought", syntax.thought_end.strip(), excluded=None)
        opening = f'{end} ("\\n" | "\\n\\n")?'
    else:
        opening = literal(syntax.content_start.removeprefix(syntax.lead))
    body = _START.sub("constrained:", grammar.replace("%llguidance {}", ""))
    rules.add("start", f"{opening} constrained")
    return f"{rules.text()}{body}"


_START = re.compile(r"^start\s*:", re.MULTILINE)


class _Answer:
    """The rules of an answer as a whole."""

    def __init__(self, rules: Rules, calls: CallRules, tools: Tools, syntax: Syntax) -> None:
        self._rules = rules
        self._calls = calls
        self._tools = tools
        self._syntax = syntax
        self._opening = syntax.thought_start.strip()
        self._closing = syntax.thought_end.strip()

    def start(self, *, is_thinking: bool) -> str:
        rules = self._rules
        if self._tools.required:
            calls = rules.add("calls", self._calls.all(is_begun=bool(self._syntax.lead)))
            if not is_thinking:
                return calls
            # Allow no other special tokens, because some of them end the answer.
            end = rules.text_up_to("end_of_thought", self._closing, excluded=None)
            return f'{end} ("\\n" | "\\n\\n")? {calls}'
        answer = rules.add("answer", self._answer())
        if not self._closing:
            return answer
        excluded = rules.specials_in(self._closing)[:1]
        end = rules.text_up_to("end_of_thought", self._closing, excluded=excluded)
        thought = rules.add("thought", f"{rules.free_text(excluded)} TEXT? | {end} {answer}")
        if is_thinking:
            return thought
        return f"{answer} | {rules.marker(self._opening)} {thought}" if self._opening else answer

    def _answer(self) -> str:
        """Return an expression for text, with or without calls behind it."""
        rules, calls = self._rules, self._syntax.calls
        head = (calls.section_start + calls.start).lstrip()
        trigger, rest = rules.split_trigger(head)
        excluded = [*rules.specials_in(trigger), *rules.specials_in(self._opening)[:1]]
        text = f"{rules.free_text(excluded)} TEXT?"
        if self._syntax.lead:
            # The prompt ends with the trigger: text has a marker here, and anything else is a call.
            opening = self._syntax.content_start.removeprefix(self._syntax.lead)
            more = rules.text_up_to("text_and_marker", trigger, excluded=excluded)
            begun = rules.add("begun", self._calls.all(is_begun=True))
            return f"{literal(opening)} ({text} | {more} {begun}) | {begun}"
        if not calls.is_bare:
            marker = rules.text_up_to("text_and_marker", trigger, excluded=excluded)
            return f"{text} | {marker} {rules.marker(rest)} {self._calls.all(is_begun=True)}"
        # An answer that begins like this is a call. Any other object is text.
        name = rf'\s*\{{\s*"{calls.name_key}"\s*:\s*"'
        begin = rules.add("begin[lazy]", f"/{name}/")
        whole = rules.add("calls", self._calls.all(is_begun=False))
        either = f"{text} | {begin} {self._calls.behind_name()}"
        if not trigger:
            return either
        marker = rules.text_up_to("text_and_marker", trigger, excluded=excluded)
        return f"{either} | {marker} {whole}"


class _ChannelAnswer:
    """The rules of an answer of several messages with headers."""

    def __init__(self, rules: Rules, calls: CallRules, tools: Tools, channels: Channels) -> None:
        self._rules = rules
        self._calls = calls
        self._tools = tools
        self._channels = channels

    def start(self) -> str:
        rules, channels = self._rules, self._channels
        if not channels.recipient:
            return self._general()
        if self._tools.required:
            thought = rules.marker(f"{channels.thought_header}{channels.message}")
            end = rules.text_up_to("end_of_thought", channels.ends[0], excluded=None)
            begin = rules.marker(channels.start)
            head, tail = channels.call_header.split(SLOT)
            call = self._call(rules.marker(head), rules.marker(f"{tail}{channels.message}"))
            calls = rules.add("calls", call)
            return f"({thought} {end} {begin})? {calls}"
        text = f"{rules.free_text([])} TEXT?"
        if channels.recipient in channels.content_header:
            # The same words address the user, so nothing tells the beginning of a call for sure.
            return text
        marker = rules.text_up_to("text_and_marker", channels.recipient, excluded=[])
        header = rules.text_up_to(
            "header", channels.message, excluded=rules.specials_in(channels.message)
        )
        return f"{text} | {marker} {self._call('', header)}"

    def _general(self) -> str:
        """Return an expression for calls in the general form, in a message for the user."""
        rules, channels = self._rules, self._channels
        if self._tools.required:
            header = rules.marker(f"{channels.content_header}{channels.message}")
            return f"{header} {self._calls.all(is_begun=False)}"
        head = (HERMES.calls.section_start + HERMES.calls.start).lstrip()
        trigger, rest = rules.split_trigger(head)
        excluded = rules.specials_in(trigger)
        marker = rules.text_up_to("text_and_marker", trigger, excluded=excluded)
        calls = f"{marker} {rules.marker(rest)} {self._calls.all(is_begun=True)}"
        return f"{rules.free_text(excluded)} TEXT? | {calls}"

    def _call(self, head: str, tail: str) -> str:
        """Return an expression for one call whose name stands between two expressions."""
        inner = self._calls.whole if self._channels.has_body_call else self._calls.arguments
        names = [
            f"{literal(tool.name)} {tail} {inner(index)}"
            for index, tool in enumerate(self._tools.tools)
        ]
        return f"{head} {self._rules.add('message', ' | '.join(names))}"
