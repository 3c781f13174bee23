"""Markers in texts: texts split and compared by segments (tags, words, single characters)."""

from __future__ import annotations

import re

_SEGMENT = re.compile(r"<[^<>]*>|<[^<>]*$|\[[A-Z][A-Z_ ]*\]|\[[^\[\]\s]*\]|\s|\w+|.", re.DOTALL)
_MARKER = re.compile(r"<[^<>\s][^<>]*>|\[[A-Z][A-Z_ ]*\]|\[[^\[\]\s]+\]")
_MIRROR = ("/", ""), ("close", "open"), ("END", "START"), ("end", "start"), ("end", "begin")


def segments_of(text: str) -> list[str]:
    """Split a text into segments, so that two markers are equal only as a whole."""
    return _SEGMENT.findall(text)


def is_marker(segment: str) -> bool:
    """Return whether a segment looks like a marker, such as ``<tag>``, or ``[TAG]``."""
    return _MARKER.fullmatch(segment) is not None


def common_prefix(first: str, second: str) -> str:
    """Return the segments that both texts begin with."""
    size = 0
    for left, right in zip(segments_of(first), segments_of(second), strict=False):
        if left != right:
            break
        size += len(left)
    return first[:size]


def common_suffix(first: str, second: str) -> str:
    """Return the segments that both texts end with."""
    size = 0
    lefts, rights = reversed(segments_of(first)), reversed(segments_of(second))
    for left, right in zip(lefts, rights, strict=False):
        if left != right:
            break
        size += len(left)
    return first[len(first) - size :]


def first_marker(text: str) -> str:
    """Return the first marker in a text, or ""."""
    match = _MARKER.search(text)
    return match[0] if match else ""


def last_marker(text: str) -> str:
    """Return the last marker in a text, or ""."""
    markers = _MARKER.findall(text)
    return markers[-1] if markers else ""


def mirrors_of(ending: str) -> list[str]:
    """Return the texts that `ending` could close, such as ``<think>`` for ``</think>``."""
    found = [ending.replace(*pair) for pair in _MIRROR if pair[0] in ending]
    return [text for text in found if text]


def closing_of(opening: str) -> str:
    """Return the tag that closes a tag such as ``<think>`` or ``[THINK]``, or ""."""
    if is_marker(opening) and opening[1].isalpha():
        return f"{opening[0]}/{opening[1:]}"
    for begin, end in (("START", "END"), ("begin", "end"), ("start", "end")):
        if begin in opening:
            return opening.replace(begin, end)
    return ""
