"""The values that describe how a model writes thoughts, tool calls and the end of its turn.

Parser and tool grammar are made from one `Syntax`. All markers are kept as the template writes
them, with their white space; the parser is lenient about white space, the grammar writes it.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

SLOT = "\ufffc"
"""Stands in a marker for text that differs from call to call: an id, an index, or a type."""

_PIECE = re.compile(rf"\s+|{SLOT}|[^\s{SLOT}]+")


class CallForm(enum.Enum):
    """How the name of a call is written. In the descriptions, ``f`` is the tool's name."""

    OBJECT = "object"
    """``{"name": "f", "arguments": {…}}``."""

    KEYED = "keyed"
    """``{"f": {…}}``."""

    NAMED = "named"
    """The name stands between two markers, before its arguments."""


class ArgumentForm(enum.Enum):
    """How the arguments of a call are written."""

    JSON = "json"
    """One JSON object."""

    TAGGED = "tagged"
    """Each argument between markers: its key, then its value, a string without quotes."""

    NESTED = "nested"
    """Each argument in an element that has its key as name; objects and lists are elements too."""

    PAIRS = "pairs"
    """Pairs of key and value in one pair of brackets, with strings in quotes of their own."""


@dataclass(frozen=True)
class Calls:
    """How tool calls are written.

    An answer's calls are ``section_start``, the calls with `separator` between them, and
    ``section_end``. A call is ``start``, then an object (`CallForm.OBJECT`, `CallForm.KEYED`) or
    the name, ``name_end`` and arguments, then ``end``. Each marker may be empty.
    """

    form: CallForm = CallForm.OBJECT
    arguments: ArgumentForm = ArgumentForm.JSON
    section_start: str = ""
    section_end: str = ""
    start: str = ""
    end: str = ""
    separator: str = "\n"
    is_list: bool = False
    """Whether the calls of an answer are the items of one JSON list."""
    wrapper: str = ""
    """Key of the object's member that holds the call, such as ``function``; usually none."""
    name_key: str = "name"
    arguments_key: str = "arguments"
    id_key: str = ""
    """Key of the call's id in the object, if a model writes ids before the name."""
    name_end: str = ""
    arguments_start: str = ""
    """Behind `name_end`, only where the call has arguments."""
    argument_start: str = ""
    key_end: str = ""
    """Between key and value. A `SLOT` in it is the value's type."""
    string_type: str = ""
    """The text in the slot of `key_end` where the value is a string."""
    other_type: str = ""
    """The text in the slot where the value is a number."""
    value_end: str = ""
    """Behind a value. In `ArgumentForm.NESTED`, a `SLOT` in it is the key."""
    argument_separator: str = ""
    arguments_end: str = ""
    quote: str = ""
    """The mark around strings in `ArgumentForm.PAIRS`."""
    several: bool = True
    """Whether the template can write several calls in one turn."""
    is_bare: bool = False
    """Whether a call may begin with its object, without any marker before it."""


HERMES_CALLS = Calls(start="<tool_call>\n", end="\n</tool_call>")
"""The form of calls of Hermes, Qwen, and others."""


@dataclass(frozen=True)
class Channels:
    """An answer of several messages, each with a header that says whom it is for.

    The prompt ends with `start`. A message is a header, `message`, its body, and a marker that
    ends it.
    """

    start: str
    message: str
    ends: tuple[str, ...]
    thought_header: str
    content_header: str
    recipient: str = ""
    """What precedes a tool's name in the header of a call; empty if there are no calls."""
    call_header: str = ""
    """The whole header of a call, with a `SLOT` for the name."""
    call_end: str = ""
    has_body_call: bool = False
    """Whether the body of a call is a call in the form of `Syntax.calls`, not its arguments."""


@dataclass(frozen=True)
class Syntax:
    """How one model writes its answers. Any marker may be a special token or plain text."""

    calls: Calls = HERMES_CALLS
    other_calls: tuple[Calls, ...] = ()
    """Further forms in which the model may write calls."""
    thought_start: str = ""
    thought_end: str = ""
    """Empty if the model does not think. `thought_start` alone may be empty."""
    thought_lead: str = ""
    """First words of each thought, with which the prompt ends in place of `thought_start`."""
    thinks_again: bool = False
    """Whether a thought may also follow text or calls."""
    content_start: str = ""
    content_end: str = ""
    """Markers around the text of an answer."""
    turn_start: str = ""
    """The marker that begins an answer at the end of the prompt; some models repeat it."""
    turn_end: tuple[str, ...] = ()
    """Markers that may end an answer."""
    lead: str = ""
    """The end of the prompt that belongs to the first marker of an answer."""
    channels: Channels | None = None
    is_native: bool = True
    """Whether `calls` is the template's own form. If not, the prompt has to describe the form."""

    @property
    def thinks(self) -> bool:
        """Whether an answer may contain a thought."""
        return bool(self.thought_end) or self.channels is not None

    @property
    def is_plain(self) -> bool:
        """Whether an answer without tools is text alone, so that it needs no parser."""
        return not (self.thinks or self.content_start or self.lead)

    def opens_thought(self, prompt: str) -> bool:
        """Return whether a prompt ends with an open thought, so that the answer continues it."""
        end = prompt.rstrip()
        if not self.thought_end:
            return False
        if self.thought_lead:
            return end.endswith(self.thought_lead.rstrip())
        return bool(self.thought_start) and end.endswith(self.thought_start.strip())

    @property
    def call_start_marker(self) -> str:
        """The text that begins a call, without white space around it."""
        return (self.calls.section_start + self.calls.start).strip()

    @property
    def call_end_marker(self) -> str:
        """The text that ends a call, without white space around it."""
        return (self.calls.end + self.calls.section_end).strip()

    @property
    def arguments_key(self) -> str:
        """Key of the arguments in the JSON object of a call."""
        return self.calls.arguments_key


HERMES = Syntax(is_native=False)
"""The general syntax, which the prompt describes where the template knows no tools."""


def pieces_of(marker: str) -> list[str]:
    """Split a marker at white space and slots, and return the pieces without the white space."""
    return [piece for piece in _PIECE.findall(marker) if not piece.isspace()]
