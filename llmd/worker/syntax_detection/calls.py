"""Learn from renderings how a model writes tool calls."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any

from llmd.worker.markers import (
    common_prefix,
    common_suffix,
    is_marker,
)
from llmd.worker.syntax import SLOT, ArgumentForm, CallForm, Calls, Syntax
from llmd.worker.syntax_detection.frame import Frame, cut_turn
from llmd.worker.syntax_detection.probe import (
    ARGUMENTS,
    IDS,
    NAMES,
    NUMBER,
    NUMBER_KEY,
    TEXT_KEY,
    TEXTS,
    Probe,
)

_INDEX = re.compile(r"\d+")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class _Call:
    """A call in a rendered turn, and where it begins and ends."""

    begin: int
    end: int
    calls: Calls
    """Its form, without the markers around it."""


def learn_calls(
    probe: Probe, frame: Frame, syntax: Syntax, ends: frozenset[str], *, only_one: bool = False
) -> Calls | None:
    """Return the form of calls as the template renders them, or None if it renders none.

    `ends` are the spellings of tokens that end an answer. With `only_one`, the form is read off
    a turn with one call, because several are written as several messages.
    """
    single = probe.calls(1)
    if single is None:
        return None
    one = _body(single, frame, syntax, ends)
    several = None if only_one else probe.calls(2)
    two = _body(several, frame, syntax, ends) if several and NAMES[1] in several else ""
    first = _find(one, 0, two)
    if first is None:
        return None
    calls = first.calls
    before, after = one[: first.begin].lstrip(), one[first.end :]
    if calls.arguments is ArgumentForm.JSON and calls.form is not CallForm.NAMED:
        listed = _list_around(before, after)
        if listed is not None:
            return replace(
                calls, section_start=listed[0], section_end=listed[1], is_list=True,
                separator=", ", several=bool(two),
            )  # fmt: skip
    if calls.form is not CallForm.NAMED and not before.strip():
        marker = _built_in_marker(probe, frame)
        return replace(calls, section_start=marker, separator="; ", is_bare=True, several=bool(two))
    second = _find(two, 1, two) if two else None
    place = _find(two, 0, two) if two else None
    if second is None or place is None:
        end = after if before.strip() and _closes(after) else after.rstrip()
        return replace(calls, start=before, end=end, several=False)
    between = two[place.end : second.begin]
    end = common_prefix(between, after)
    rest = between[len(end) :]
    start = common_suffix(before, rest)
    separator = rest[: len(rest) - len(start)]
    section_start = before[: len(before) - len(start)]
    section_end = after[len(end) :] if section_start.strip() else ""
    if not before.strip() and separator.strip():
        start, separator = separator.strip(), ""
    return replace(
        calls,
        section_start=section_start,
        section_end=section_end.rstrip(),
        start=start,
        end=end,
        separator=separator,
    )


def _closes(text: str) -> bool:
    return bool(text.strip())


def _body(turn: str, frame: Frame, syntax: Syntax, ends: frozenset[str]) -> str:
    """Return the part of a turn that consists of calls, with ids replaced by slots."""
    turn = turn.removeprefix(frame.before)
    body = turn[len(common_prefix(turn, frame.head)) :]
    marks = (syntax.thought_start, syntax.thought_end, syntax.content_start, syntax.content_end)
    words = [mark.strip() for mark in marks if mark.strip()]
    while True:
        body = body.lstrip()
        word = next((word for word in words if body.startswith(word)), "")
        if not word:
            break
        body = body[len(word) :]
    for call_id in IDS:
        body = body.replace(call_id, SLOT)
    return cut_turn(body, frame, ends)


def _find(text: str, index: int, two: str) -> _Call | None:
    """Return a call of the text: number `index` of those that were given."""
    name = NAMES[index]
    at = text.find(name)
    if at < 0:
        return None
    for opening in re.finditer(r"\{", text[:at]):
        try:
            value, end = _DECODER.raw_decode(text, opening.start())
        except ValueError:
            continue
        if isinstance(value, dict) and (calls := _of_object(value, name)):
            return _Call(opening.start(), end, calls)
    return _named(text, at, index, two)


def _of_object(value: dict[str, Any], name: str) -> Calls | None:
    """Return the form of a call that is written as a JSON object."""
    keys = list(value)
    if isinstance(value.get(name), dict):
        return Calls(CallForm.KEYED)
    for key in keys:
        if isinstance(value[key], dict) and (inner := _of_object(value[key], name)):
            return replace(inner, wrapper=key) if inner.form is CallForm.OBJECT else None
    name_key = next((key for key in keys if value[key] == name), None)
    arguments_key = next(
        (key for key in keys if isinstance(value[key], dict) and TEXT_KEY in value[key]), None
    )
    if name_key is None or arguments_key is None:
        return None
    ids = [key for key in keys[: keys.index(name_key)] if key.endswith("id")]
    return Calls(
        CallForm.OBJECT,
        name_key=name_key,
        arguments_key=arguments_key,
        id_key=ids[0] if ids else "",
    )


def _list_around(before: str, after: str) -> tuple[str, str] | None:
    """Return what stands around a list of objects, if these two texts are its ends."""
    head, tail = before.rstrip(), after.lstrip()
    if not head.endswith("[") or not tail.startswith("]"):
        return None
    return head[:-1], tail[1:]


def _built_in_marker(probe: Probe, frame: Frame) -> str:
    """Return the marker that a model whose calls have none writes before some of them."""
    turn = (probe.built_in_call() or "").removeprefix(frame.before)
    body = turn[len(common_prefix(turn, frame.head)) :].partition(NAMES[0])[0]
    return body if is_marker(body.strip()) else ""


def _named(text: str, at: int, index: int, two: str) -> _Call | None:
    """Return a call whose name stands between markers."""
    name = NAMES[index]
    after = at + len(name)
    opening = text.find("{", after)
    if opening >= 0:
        try:
            value, end = _DECODER.raw_decode(text, opening)
        except ValueError:
            value = end = None
        if value == ARGUMENTS[index]:
            name_end = _with_index(text[after:opening], two)
            return _Call(at, end or 0, Calls(CallForm.NAMED, name_end=name_end))
    calls = _tagged(text if index == 0 else two, two)
    if calls is None:
        return None
    value = str(NUMBER) if index == 0 else TEXTS[1]
    last = text.find(value, after)
    if last < 0:
        return None
    end = last + len(value)
    key = NUMBER_KEY if index == 0 else TEXT_KEY
    closing = calls.value_end.replace(SLOT, key)
    for mark in (calls.quote if index else "", closing, calls.arguments_end):
        rest = text[end:]
        skipped = len(rest) - len(rest.lstrip())
        if mark.strip() and rest.lstrip().startswith(mark.strip()):
            end += skipped + len(mark.strip())
    return _Call(at, end, calls)


def _with_index(marker: str, two: str) -> str:
    """Return a marker behind the first name with a slot for what differs behind the second."""
    at = two.find(NAMES[1])
    if at < 0:
        return _INDEX.sub(SLOT, marker)
    other = two[at + len(NAMES[1]) :]
    if other.startswith(marker):
        return marker
    changed = _INDEX.sub(SLOT, marker)
    return changed if _INDEX.sub(SLOT, other).startswith(changed) else marker


def _tagged(text: str, two: str) -> Calls | None:
    """Return the form of the first call, whose arguments are not JSON."""
    places: list[tuple[int, int]] = []
    at = 0
    for word in (NAMES[0], TEXT_KEY, TEXTS[0], NUMBER_KEY, str(NUMBER)):
        found = text.find(word, at)
        if found < 0:
            return None
        at = found + len(word)
        places.append((found, at))
    begin, key_end, text_end, other_end = (
        text[places[index][1] : places[index + 1][0]] for index in range(4)
    )
    tail = text[places[4][1] :].partition(NAMES[1])[0]
    nested = TEXT_KEY in text_end
    if nested:
        text_end, tail = text_end.replace(TEXT_KEY, SLOT), tail.replace(NUMBER_KEY, SLOT)
    calls = Calls(CallForm.NAMED, ArgumentForm.NESTED if nested else ArgumentForm.TAGGED)
    quote = key_end.removeprefix(other_end)
    if key_end != other_end and key_end.startswith(other_end) and text_end.startswith(quote):
        return replace(
            calls,
            arguments=ArgumentForm.PAIRS,
            arguments_start=begin,
            key_end=other_end,
            argument_separator=text_end[len(quote) :],
            arguments_end=tail.lstrip()[:1],
            quote=quote,
        )
    string_type = other_type = ""
    if key_end != other_end:
        key_end, string_type, other_type = _with_type(key_end, other_end)
    value_end = common_prefix(text_end, tail).rstrip()
    if nested:
        closing = text_end.find(key_end.strip(), text_end.index(SLOT))
        value_end = text_end[: closing + len(key_end.strip())] if closing >= 0 else ""
    start = common_suffix(begin, text_end[len(value_end) :])
    if not value_end.strip() or not start.strip():
        return None
    return replace(
        calls,
        name_end=_with_index(begin[: len(begin) - len(start)], two),
        argument_start=start.lstrip(),
        key_end=key_end,
        string_type=string_type,
        other_type=other_type,
        value_end=value_end,
        argument_separator=text_end[len(value_end) : len(text_end) - len(start.lstrip())],
    )


def _with_type(first: str, second: str) -> tuple[str, str, str]:
    """Return the marker behind a key with a slot for the type, and the types of both values."""
    size = min(len(first), len(second))
    begin = next((at for at in range(size) if first[at] != second[at]), size)
    end = next((at for at in range(size) if first[-1 - at] != second[-1 - at]), size)
    head, tail = first[:begin], first[len(first) - end :]
    while head and head[-1].isalnum():
        head = head[:-1]
    while tail and tail[0].isalnum():
        tail = tail[1:]
    kinds = [text[len(head) : len(text) - len(tail)] for text in (first, second)]
    return f"{head}{SLOT}{tail}", kinds[0], kinds[1]
