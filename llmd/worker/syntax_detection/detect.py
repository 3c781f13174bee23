"""Learn a model's syntax from its chat template, and check it on the template's own renderings."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace

from llmd.engine.protocol import CallDelta, Delta, Reasoning
from llmd.worker.answer.parser import AnswerParser
from llmd.worker.markers import common_prefix, is_marker, segments_of
from llmd.worker.syntax import HERMES, HERMES_CALLS, Syntax
from llmd.worker.syntax_detection.calls import learn_calls
from llmd.worker.syntax_detection.frame import Frame, add_call_channel, cut_turn
from llmd.worker.syntax_detection.probe import (
    ARGUMENTS,
    CONTENT,
    NAMES,
    THOUGHT,
    TOOLS,
    Probe,
    Render,
)


def detect_syntax(source: str | None, render: Render | None, *, ends: Iterable[str] = ()) -> Syntax:
    """Return the syntax of a model, learnt from renderings of its chat template.

    `ends` are the spellings of the tokens that end an answer. A part that the parser does not
    read back from the template's own rendering is replaced by the general form.
    """
    if source is None or render is None:
        return HERMES
    probe = Probe(render)
    frame = Frame(probe)
    syntax = frame.learn(source)
    if not _reads_text(probe, frame, syntax):
        syntax = Syntax()
    if syntax.channels is not None:
        return _with_call_channel(probe, frame, syntax, frozenset(ends))
    prompt = probe.tools()
    calls = learn_calls(probe, frame, syntax, frozenset(ends))
    if calls is not None:
        found = _with_lead(replace(syntax, calls=calls), frame)
        if _reads_calls(probe, frame, found, frozenset(ends)):
            if NAMES[0] in prompt:
                return found
            # The model may know a form of its own though its template does not write the tools.
            return replace(syntax, other_calls=(calls,), is_native=False)
    return replace(syntax, is_native=HERMES_CALLS.start.strip() in prompt)


def _with_lead(syntax: Syntax, frame: Frame) -> Syntax:
    """Return the syntax with the end of the prompt, if that is the first marker of an answer."""
    lead = (syntax.calls.section_start + syntax.calls.start).strip()
    if not lead or not frame.prompt.rstrip().endswith(lead):
        return syntax
    opening = f"{lead}{syntax.content_start}" if syntax.content_start else ""
    return replace(syntax, lead=lead, content_start=opening)


def _with_call_channel(probe: Probe, frame: Frame, syntax: Syntax, ends: frozenset[str]) -> Syntax:
    """Return the syntax with the channel of calls, if the parser reads calls back from it."""
    turn = probe.calls(1)
    if turn is None or syntax.channels is None:
        return replace(syntax, is_native=False)
    channels = add_call_channel(syntax.channels, turn.removeprefix(frame.before))
    body = turn.rpartition(channels.message)[2]
    found = replace(syntax, channels=channels)
    if NAMES[0] in body:
        inner = Frame(probe)
        inner.head = turn.removeprefix(frame.before)[: -len(body)]
        calls = learn_calls(probe, inner, Syntax(), ends | set(channels.ends), only_one=True)
        if calls is not None:
            found = replace(syntax, channels=replace(channels, has_body_call=True), calls=calls)
    else:
        end = body[body.rfind("}") + 1 :].strip()
        ends_of = tuple(dict.fromkeys([*channels.ends, *([end] if end else [])]))
        found = replace(syntax, channels=replace(channels, ends=ends_of, call_end=end))
    if _reads_calls(probe, frame, found, ends):
        return found
    return replace(syntax, is_native=False)


def _reads_text(probe: Probe, frame: Frame, syntax: Syntax) -> bool:
    """Return whether the parser reads back content and thought."""
    end = f"{CONTENT}{syntax.content_end}"
    turn = probe.answer()
    if turn is not None:
        text, thought, _ = _read(turn.partition(CONTENT)[0] + end, frame, syntax)
        # A template that writes no thoughts may write content where it lets a thought begin.
        if CONTENT not in (text.strip(), "" if frame.middle else thought.strip()):
            return False
    turn = probe.answer(thought=True)
    if turn is None or THOUGHT not in turn or CONTENT not in turn:
        return True
    text, thought, _ = _read(turn.partition(CONTENT)[0] + end, frame, syntax)
    return (text.strip(), thought.strip()) == (CONTENT, (syntax.thought_lead + THOUGHT).strip())


def _reads_calls(probe: Probe, frame: Frame, syntax: Syntax, ends: frozenset[str]) -> bool:
    """Return whether the parser reads back one call, and several if the template writes them."""
    for count in (1, 2):
        turn = probe.calls(count)
        if turn is None or NAMES[count - 1] not in turn:
            continue
        text, _, calls = _read(cut_turn(turn, frame, ends), frame, syntax)
        if (
            any(not (is_marker(part) or part.isspace()) for part in segments_of(text))
            or calls != list(zip(NAMES, ARGUMENTS, strict=True))[:count]
        ):
            return False
    return True


def _read(turn: str, frame: Frame, syntax: Syntax) -> tuple[str, str, list[tuple[str, object]]]:
    """Return (text, thought, calls) that the parser reads from a rendered turn."""
    turn = turn.removeprefix(frame.before)
    size = len(common_prefix(turn, frame.prompt))
    is_thinking = syntax.opens_thought(turn[:size]) or (
        THOUGHT in turn and bool(syntax.thought_lead)
    )
    parser = AnswerParser(syntax, request_id=0, tools=TOOLS, is_thinking=is_thinking)
    text = thought = ""
    names: list[str] = []
    arguments: list[str] = []
    for event in [*parser.push(turn[size:]), *parser.finish()]:
        if isinstance(event, Delta):
            text += event.text
        elif isinstance(event, Reasoning):
            thought += event.text
        elif isinstance(event, CallDelta):
            if event.name:
                names.append(event.name)
                arguments.append("")
            arguments[event.index] += event.arguments
    try:
        return (
            text,
            thought,
            [(name, json.loads(given)) for name, given in zip(names, arguments, strict=True)],
        )
    except ValueError:
        return text, thought, []
