"""Find out what a chat template can do, by rendering messages with words that it must show.

llama.cpp finds its templates' capabilities in the same way (`common/jinja/caps.cpp`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from typing import Any, Literal

import msgspec
from msgspec import Struct

from llmd.engine.protocol import Call, Ending, Message, Role, Tool, Tools
from llmd.errors import InvalidField
from llmd.worker.prompt.limits import TimeLimitReached

MAX_PROBE_S = 3.0
"""Limit of processor time for finding the capabilities of one template."""

ReasoningForm = Literal["", "reasoning_content", "thinking", "reasoning", "thought", "part"]
"""How a message has its thought: in a field of this name, or as a part of its content."""

_WRITTEN_PART = re.compile(r"""(["'])type\1: (["'])(text|thinking)\2""")

_FIELDS: tuple[ReasoningForm, ...] = ("reasoning_content", "thinking", "reasoning", "thought")


class Capabilities(Struct, frozen=True, kw_only=True):
    """What a template can do. The defaults are those of a template that takes everything."""

    typed_roles: frozenset[Role] = frozenset()
    """Roles whose content must be a list of parts, since a text would not be shown."""
    system: Literal["anywhere", "first", "none"] = "anywhere"
    """Where a system message may stand."""
    several_systems: bool = True
    """Whether a conversation may begin with several system messages."""
    shows_user: bool = True
    """Whether the text of a user is shown at all."""
    shows_history: bool = True
    """Whether all messages of a conversation are shown."""
    joined_roles: frozenset[Role] = frozenset()
    """Roles of which two messages must not follow each other."""
    assistant_first: bool = True
    """Whether a conversation may begin with a message of the model."""
    user_after_result: bool = True
    """Whether a user may write directly after the result of a tool."""
    tools_variable: str = ""
    """The variable in which the template takes tools; empty if it does not write them."""
    tools_as_text: bool = False
    """Whether the variable is JSON text instead of a list."""
    needs_tools: bool = False
    """Whether the variable must be given even if there are no tools."""
    arguments: Literal["object", "text"] = "object"
    """The form in which a call's arguments are given."""
    text_arguments: bool = True
    """Whether a call's arguments may also be a text that is no JSON object."""
    long_call_ids: bool = True
    """Whether the id of a call may be any text."""
    splits_text: Literal["never", "beside_thoughts", "always"] = "never"
    """When the text of a message must be a message of its own, before that with the calls."""
    parallel_calls: bool = True
    """Whether a message may have several calls."""
    reasoning: ReasoningForm = ""
    """The form in which the template takes thoughts; empty if it shows none."""
    continues: bool = True
    """Whether the text of a last message is shown, so that it can be continued."""

    @property
    def has_tools(self) -> bool:
        """Whether the template writes tools, calls and results itself."""
        return bool(self.tools_variable)


Render = Callable[[Capabilities, list[Message], Tools | None, Ending], str]
"""Return the text that the template makes of messages in the form that `Capabilities` describes."""

_USER, _USER_2 = "Zuqa", "Zuqb"
_ANSWER, _ANSWER_2 = "Zaqa", "Zaqb"
_SYSTEM, _SYSTEM_2 = "Zsqa", "Zsqb"
_THOUGHT, _RESULT, _RESULT_2 = "Ztqa", "Zrqa", "Zrqb"
_NAME, _DESCRIPTION, _PARAMETER, _VALUE, _VALUE_2 = "zfqa", "Zdqa", "zpqa", "Zvqa", "Zvqb"
_SHORT_ID, _SHORT_ID_2, _LONG_ID = "zi1234567", "zj1234567", "call_zk-123456789"

_TOOLS = Tools(
    tools=[
        Tool(
            name=_NAME,
            description=_DESCRIPTION,
            parameters='{"type": "object", "properties": '
            f'{{"{_PARAMETER}": {{"type": "string"}}}}, '
            f'"required": ["{_PARAMETER}"]}}',
        )
    ]
)


def find_capabilities(render: Render, variables: Iterable[str]) -> Capabilities:
    """Return the capabilities of a template that reads these `variables`.

    A template that uses up `MAX_PROBE_S` gets those that are known until then.
    """
    probe = _Probe(render)
    try:
        probe.find_tools_variable(variables)
        probe.find_contents()
        probe.find_order()
        probe.find_calls()
        probe.find_reasoning()
        probe.find_text_beside_calls()
    except TimeLimitReached:
        pass
    return probe.found


class _Probe:
    """The capabilities found so far, which the next renderings build on."""

    def __init__(self, render: Render) -> None:
        self.found = Capabilities()
        self._render = render
        self._ends_at = time.thread_time() + MAX_PROBE_S

    def find_tools_variable(self, variables: Iterable[str]) -> None:
        """Find the variable for tools. Some templates fail without it even for plain messages."""
        named = sorted(name for name in variables if "tool" in name or "function" in name)
        names = ["tools", *(name for name in named if name != "tools")]
        for name in names:
            for as_text in (False,) if name == "tools" else (False, True):
                changes: dict[str, Any] = {"tools_variable": name, "tools_as_text": as_text}
                if self._shows([_user()], _NAME, _DESCRIPTION, tools=_TOOLS, **changes):
                    self._set(**changes)
                    self._set(needs_tools=not self._renders([_user()]))
                    return
                typed = frozenset[Role]({"user"})
                if self._shows(
                    [_user()], _NAME, _DESCRIPTION, tools=_TOOLS, typed_roles=typed, **changes
                ):
                    self._set(**changes)
                    return

    def find_contents(self) -> None:
        """Find the roles whose content must be parts, and whether a system message is taken."""
        # A template that refuses a message gives its reason later, when it is used.
        self._set(
            shows_user=self._has_content("user", [_user()], _USER) or not self._renders([_user()])
        )
        conversation = [_user(), _answer(), _user(_USER_2)]
        self._has_content("assistant", conversation, _ANSWER)
        self._set(
            shows_history=self._shows(conversation, _USER, _ANSWER, _USER_2)
            or not self._renders(conversation)
        )
        if not self._has_content("system", [_system(), _user()], _SYSTEM):
            self._set(system="none")
        elif not self._shows([_user(), _answer(), _system(), _user(_USER_2)], _SYSTEM):
            self._set(system="first")

    def find_order(self) -> None:
        """Find which messages may follow each other."""
        systems = [_system(), _system(_SYSTEM_2), _user()]
        self._set(
            several_systems=self._shows(systems, _SYSTEM, _SYSTEM_2),
            assistant_first=self._shows([_answer(), _user()], _ANSWER, _USER),
        )
        if not self._shows([_user(), _user(_USER_2)], _USER, _USER_2):
            self._add_joined("user")
        answers = [_user(), _answer(), _answer(_ANSWER_2), _user(_USER_2)]
        if not self._shows(answers, _ANSWER, _ANSWER_2, _USER_2):
            self._add_joined("assistant")
        last = [_user(), _answer()]
        self._set(continues=self._shows(last, _ANSWER, ending="nothing"))

    def find_calls(self) -> None:
        """Find the form of calls and results. Without one, the template has no tools."""
        if not self.found.has_tools:
            return
        if not any(self._find_call(form) for form in ("object", "text")):
            self._set(tools_variable="", tools_as_text=False, needs_tools=False)
            return
        self._set(
            long_call_ids=self._shows(_calls(call_id=_LONG_ID), _VALUE, _RESULT, tools=_TOOLS),
            text_arguments=self._shows(_calls(arguments=_VALUE), _VALUE, _RESULT, tools=_TOOLS),
        )
        two = [
            _user(),
            Message(
                role="assistant",
                content="",
                calls=[_call(), _call(_SHORT_ID_2, _arguments(_VALUE_2))],
            ),
            _result(),
            _result(_SHORT_ID_2, _RESULT_2),
        ]
        self._set(
            parallel_calls=self._shows(two, _VALUE, _VALUE_2, _RESULT, _RESULT_2, tools=_TOOLS),
            user_after_result=self._shows(
                [*_calls(), _user(_USER_2)], _RESULT, _USER_2, tools=_TOOLS
            ),
        )

    def find_reasoning(self) -> None:
        """Find the form in which thoughts are taken, in one of the places where they are shown."""
        thinking = Message(role="assistant", content=_ANSWER, reasoning=_THOUGHT)
        places: list[tuple[list[Message], Tools | None, Ending]] = [
            ([_user(), thinking], None, "nothing"),
            ([_user(), thinking, _user(_USER_2)], None, "answer"),
        ]
        if self.found.has_tools:
            places.insert(0, (_calls(reasoning=_THOUGHT), _TOOLS, "answer"))
        for form in (*_FIELDS, "part"):
            for messages, tools, ending in places:
                if self._shows(messages, _THOUGHT, tools=tools, ending=ending, reasoning=form):
                    self._set(reasoning=form)
                    return

    def find_text_beside_calls(self) -> None:
        """Find whether calls are shown beside a text, and beside a text and a thought."""
        if not self.found.has_tools:
            return
        alone = [_calls()[0], _answer(), *_calls()[1:]]
        if not self._shows(alone, _ANSWER, _VALUE, _RESULT, tools=_TOOLS):
            return
        if not self._shows(_calls(text=_ANSWER), _VALUE, _RESULT, tools=_TOOLS):
            self._set(splits_text="always")
        elif self.found.reasoning and not self._shows(
            _calls(text=_ANSWER, reasoning=_THOUGHT), _VALUE, _RESULT, tools=_TOOLS
        ):
            self._set(splits_text="beside_thoughts")

    def _find_call(self, form: str) -> bool:
        """Return whether calls and results are shown in a form, and keep it."""
        # What Python writes for an object is not what models were trained to read.
        python = f"'{_PARAMETER}': '{_VALUE}'"
        for typed in (self.found.typed_roles, self.found.typed_roles | {"tool"}):
            changes: dict[str, Any] = {"arguments": form, "typed_roles": typed}
            text = self._text(_calls(), tools=_TOOLS, **changes)
            if text is None or not _has_all(text, (_NAME, _PARAMETER, _VALUE, _RESULT)):
                continue
            if form == "object" and python in text:
                as_text = self._text(_calls(), tools=_TOOLS, **changes | {"arguments": "text"})
                if as_text is not None and f'"{_VALUE}"' in as_text:
                    continue
            self._set(**changes)
            return True
        return False

    def _has_content(self, role: Role, messages: list[Message], word: str) -> bool:
        """Return whether the content of a role is shown, as text or as parts."""
        if self._shows(messages, word):
            return True
        typed = self.found.typed_roles | {role}
        if self._shows(messages, word, typed_roles=typed):
            self._set(typed_roles=typed)
            return True
        return False

    def _add_joined(self, role: Role) -> None:
        self._set(joined_roles=self.found.joined_roles | {role})

    def _renders(self, messages: list[Message]) -> bool:
        return self._text(messages) is not None

    def _shows(
        self,
        messages: list[Message],
        *words: str,
        tools: Tools | None = None,
        ending: Ending = "answer",
        **changes: Any,
    ) -> bool:
        """Return whether the prompt of messages has all these words."""
        text = self._text(messages, tools=tools, ending=ending, **changes)
        return text is not None and _has_all(text, words)

    def _text(
        self,
        messages: list[Message],
        *,
        tools: Tools | None = None,
        ending: Ending = "answer",
        **changes: Any,
    ) -> str | None:
        """Return the prompt of messages, or None if the template refuses them."""
        if time.thread_time() > self._ends_at:
            raise TimeLimitReached
        tried = msgspec.structs.replace(self.found, **changes)
        try:
            text = self._render(tried, messages, tools, ending)
        except InvalidField:
            return None
        # A template that does not know parts writes them as Python or JSON.
        return None if _WRITTEN_PART.search(text) else text

    def _set(self, **changes: Any) -> None:
        self.found = msgspec.structs.replace(self.found, **changes)


def _has_all(text: str, words: Iterable[str]) -> bool:
    # Some templates change the case.
    return all(word.lower() in text.lower() for word in words)


def _user(text: str = _USER) -> Message:
    return Message(role="user", content=text)


def _answer(text: str = _ANSWER) -> Message:
    return Message(role="assistant", content=text)


def _system(text: str = _SYSTEM) -> Message:
    return Message(role="system", content=text)


def _arguments(value: str = _VALUE) -> str:
    return f'{{"{_PARAMETER}": "{value}"}}'


def _call(call_id: str = _SHORT_ID, arguments: str = "") -> Call:
    return Call(name=_NAME, arguments=arguments or _arguments(), id=call_id)


def _result(call_id: str = _SHORT_ID, text: str = _RESULT) -> Message:
    return Message(role="tool", content=text, call_id=call_id, name=_NAME)


def _calls(
    call_id: str = _SHORT_ID, arguments: str = "", reasoning: str = "", text: str = ""
) -> list[Message]:
    """Return a question, a call and its result."""
    call = _call(call_id, arguments)
    return [
        _user(),
        Message(role="assistant", content=text, calls=[call], reasoning=reasoning),
        _result(call_id),
    ]
