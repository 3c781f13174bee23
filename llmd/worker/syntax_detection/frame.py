"""Learn from renderings what stands around thoughts and content of an answer."""

from __future__ import annotations

import re
from dataclasses import replace

from llmd.worker.markers import (
    closing_of,
    common_prefix,
    first_marker,
    is_marker,
    last_marker,
    mirrors_of,
    segments_of,
)
from llmd.worker.syntax import SLOT, Channels, Syntax
from llmd.worker.syntax_detection.probe import CONTENT, NAMES, NUMBER, TEXTS, THOUGHT, Probe

_MAX_END_CHARS = 80
_MAX_END_SEGMENTS = 8
_LETTER = re.compile(r"\w")


class Frame:
    """The renderings of one template that show prompt, content and thought."""

    def __init__(self, probe: Probe) -> None:
        before = probe.prompt(generate=False) or ""
        self.prompt = (probe.prompt() or "").removeprefix(before)
        """What the prompt ends with, if the model may think."""
        self.quiet = (probe.prompt(thinking=False) or "").removeprefix(before)
        """What the prompt ends with, if the model must not think."""
        answer = (probe.answer() or "").removeprefix(before)
        self.head, _, self.tail = answer.partition(CONTENT)
        """What stands before and behind the content of an answer without a thought."""
        self.thought_head, self.middle = "", ""
        """What stands before a thought, and between the thought and what follows it."""
        for turn in (probe.answer(thought=True), probe.calls(1, content=CONTENT, thought=True),
                     probe.calls(1, thought=True)):  # fmt: skip
            if turn and THOUGHT in turn:
                self.thought_head, _, self.middle = turn.removeprefix(before).partition(THOUGHT)
                break
        self.before = before

    def learn(self, source: str) -> Syntax:
        """Return a syntax with thoughts, content and ends; its calls are the general ones."""
        if channels := self._channels():
            return Syntax(channels=channels, turn_end=tuple(filter(None, [self.tail.strip()])))
        start, end, lead = self._thought() or self._thought_of_prompt() or _known(source)
        syntax = Syntax(
            thought_start=start,
            thought_end=end,
            thought_lead=lead,
            thinks_again="|" in start and "|" in end,
        )
        opening = self._content_start(syntax)
        closing, tail = "", self.tail
        if opening and (mirror := closing_of_content(opening, tail)):
            closing, tail = mirror, tail[len(mirror) :]
        header = self.prompt[: len(common_prefix(self.prompt, self.head))] or self.prompt
        header = header.rstrip().removesuffix(start.strip()) if start else header
        marker = last_marker(header)
        begin = header[header.rindex(marker) :].strip() if marker else ""
        return replace(
            syntax,
            content_start=opening,
            content_end=closing,
            turn_start=begin,
            turn_end=_end_of(tail),
        )

    def _thought(self) -> tuple[str, str, str] | None:
        """Return (start, end, lead) of thoughts as the template renders one."""
        if not self.middle:
            return None
        head, size = self.thought_head, 0
        middle = self.middle.partition(CONTENT)[0]
        stripped = middle.lstrip()
        space = middle[: len(middle) - len(stripped)]
        for segment in segments_of(stripped)[:_MAX_END_SEGMENTS]:
            size += len(segment)
            for mirror in mirrors_of(stripped[:size]):
                if is_marker(segment) and head.rstrip().endswith(mirror):
                    end = space + stripped[:size] + _space_at(stripped, size)
                    return head[head.rindex(mirror) :], end, ""
        marker = first_marker(middle)
        if not marker or middle[: middle.index(marker)].strip():
            return None
        end = middle[: middle.index(marker)] + marker
        end += _space_at(middle, len(end))
        for other in (self.head, self.prompt, self.quiet):
            start = head[len(common_prefix(head, other)) :]
            if _LETTER.search(start):
                return start.lstrip(), end, ""
        lead = self.prompt.removeprefix(head) if self.prompt.startswith(head) else ""
        return ("", end, lead) if _LETTER.search(lead) else None

    def _thought_of_prompt(self) -> tuple[str, str, str] | None:
        """Return (start, end, lead) of thoughts that only the end of the prompt shows."""
        for text in (self.quiet, self.head):
            # An empty thought: two markers with nothing but white space between them.
            markers = [segment for segment in segments_of(text) if not segment.isspace()][-2:]
            if len(markers) == 2 and markers[0] in mirrors_of(markers[1]) and is_marker(markers[1]):
                return markers[0], markers[1], ""
        more = self.prompt.removeprefix(self.head) if self.prompt.startswith(self.head) else ""
        if is_marker(more.strip()) and closing_of(more.strip()):
            return more, closing_of(more.strip()), ""
        return None

    def _content_start(self, syntax: Syntax) -> str:
        """Return the marker before the content of an answer, if the prompt lacks it."""
        if self.prompt.strip() and self.head.rstrip().endswith(self.prompt.rstrip()):
            return ""
        rest = self.head[len(common_prefix(self.head, self.prompt)) :].lstrip()
        marks = [
            mark for mark in (syntax.thought_start.strip(), syntax.thought_end.strip()) if mark
        ]
        while mark := next((mark for mark in marks if rest.startswith(mark)), ""):
            rest = rest[len(mark) :].lstrip()
        return rest if _LETTER.search(rest) else ""

    def _channels(self) -> Channels | None:
        """Return the channels, if thought and content are messages of their own."""
        start = self.prompt.strip()
        middle = self.middle.partition(CONTENT)[0]
        message = last_marker(self.thought_head)
        if not first_marker(start) or start not in middle or not message:
            return None
        end, _, content = middle.partition(start)
        if last_marker(content) != message or not content.endswith(message):
            return None
        thought = self.thought_head.strip().removeprefix(start)
        return Channels(
            start=start,
            message=message,
            ends=tuple(dict.fromkeys(filter(None, (end.strip(), first_marker(self.tail))))),
            thought_header=thought.removesuffix(message),
            content_header=content.removesuffix(message),
        )


def closing_of_content(opening: str, tail: str) -> str:
    """Return the marker that closes the content, if the text behind the content begins with it."""
    size = 0
    for segment in segments_of(tail)[:_MAX_END_SEGMENTS]:
        size += len(segment)
        if is_marker(segment) and any(
            opening.rstrip().endswith(mirror) for mirror in mirrors_of(tail[:size])
        ):
            return tail[:size]
    return ""


def add_call_channel(channels: Channels, turn: str) -> Channels:
    """Return the channels with the header of a call, read off a turn with one call."""
    head, _, rest = turn.partition(NAMES[0])
    start = head.rpartition(channels.start)[2] if channels.start in head else ""
    after, found, body = rest.partition(channels.message)
    if not found or not start.strip() or not body:
        return channels
    words = start.split()
    return replace(
        channels,
        recipient=words[-1],
        call_header=f"{start}{SLOT}{after}",
    )


def cut_turn(text: str, frame: Frame, ends: frozenset[str]) -> str:
    """Return a turn with calls without the markers behind it that end it.

    A marker that stands in the calls too does not end the turn. `ends` always do.
    """
    last = max(text.rfind(word) for word in (*TEXTS, str(NUMBER)))
    stops = {segment for segment in segments_of(frame.tail[:200]) if is_marker(segment)}
    stops |= {segment for segment in segments_of(frame.prompt) if is_marker(segment)}
    stops |= set(frame.tail.split()[:1])
    stops = {stop for stop in stops if stop not in text[text.find(NAMES[0]) : last]} | ends
    found = [at for stop in stops if stop and (at := text.find(stop, last)) >= 0]
    return text[: min(found, default=len(text))].rstrip()


def _end_of(tail: str) -> tuple[str, ...]:
    """Return the end of a turn as far as it has no white space."""
    words = tail.split()
    return (words[0][:_MAX_END_CHARS],) if words and is_marker(segments_of(words[0])[0]) else ()


def _space_at(text: str, at: int) -> str:
    rest = text[at:]
    return rest[: len(rest) - len(rest.lstrip())]


def _known(source: str) -> tuple[str, str, str]:
    """Return the markers of thoughts that a template's source mentions, if only to remove them."""
    for opening, closing in (("[THINK]", "[/THINK]"), ("<think>", "</think>")):
        if opening in source or closing in source:
            return opening, closing, ""
    return "", "", ""
