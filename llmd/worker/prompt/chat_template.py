"""Render the chat template of a model file, which is untrusted code."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import msgspec
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llmd.engine.protocol import ChatPrompt, Message, Part, Tool, Tools
from llmd.errors import InvalidField
from llmd.worker.prompt.limits import TimeLimitReached, limited
from llmd.worker.prompt.tool_prompt import plain_messages, template_messages, template_tools
from llmd.worker.syntax import has_known_call_format

MAX_RENDER_S = 1.0
"""Time limit for compiling a template, and for each rendering."""

MAX_RENDER_BYTES = 256 * 1024 * 1024
"""Memory that a template may take beyond what the process uses already."""

MAX_OUTPUT_CHARS = 4 * 1024 * 1024
"""Length limit of a rendered prompt."""

MAX_FACTOR = 1_000_000
"""Largest integer that may be an operand of ``*`` or ``**`` in a template."""

MAX_EXPONENT = 64
"""Largest integer exponent that a template may use."""


class _GenerationTag(Extension):
    """Accept ``{% generation %}``, which marks text for training and has no effect here."""

    tags = {"generation"}  # noqa: RUF012 - Jinja2 declares it as an instance variable

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Sandbox(ImmutableSandboxedEnvironment):
    """The sandbox of Jinja2, with limits on the operators that can fill the memory at once."""

    intercepted_binops = frozenset(["*", "**"])

    def call_binop(
        self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any
    ) -> Any:
        for value in (left, right):
            if isinstance(value, int) and abs(value) > MAX_FACTOR:
                raise jinja2.TemplateError(f"a factor is larger than {MAX_FACTOR}")
        if operator == "**" and isinstance(right, int) and right > MAX_EXPONENT:
            raise jinja2.TemplateError(f"an exponent is larger than {MAX_EXPONENT}")
        return super().call_binop(context, operator, left, right)


class ChatTemplate:
    """A compiled chat template. Use it in the main thread only: its time limit is a signal."""

    def __init__(self, source: str, *, bos: str, eos: str) -> None:
        """Compile a template. Raise `InvalidField` if `source` is not a usable template."""
        env = _Sandbox(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationTag]
        )
        env.globals.update(
            raise_exception=_raise, strftime_now=_strftime_now, bos_token=bos, eos_token=eos
        )
        env.filters["tojson"] = _to_json
        # Limit compiling too, because Jinja2 evaluates constant expressions then.
        with _limited_run("cannot be compiled"):
            self._template = env.from_string(source)
        # If calls in the template's format could not be parsed, describe the tools as text instead.
        self.knows_tools = has_known_call_format(source) and self._writes_tools()

    def render(self, prompt: ChatPrompt, special: list[str]) -> list[Part]:
        """Return the prompt in parts: literal text of the template, and text of the messages.

        `special` are the spellings of special tokens. They are broken up in messages that the
        template changes so much that their text cannot be separated from its own. Raise
        `InvalidField` if the template refuses the messages, runs too long or writes too much.
        """
        messages = prompt.messages
        if not self.knows_tools:
            messages = plain_messages(messages, prompt.tools)
        # Names, ids and arguments are not marked below, and could spell a special token.
        messages = [_defuse_calls(message, special) for message in messages]
        values = _defuse_all(_variables(prompt.variables), special)
        if prompt.tools is not None and self.knows_tools:
            values["tools"] = _defuse_all(template_tools(prompt.tools), special)
        plain = self._text([message.content for message in messages], messages, values)
        for contents in (
            [message.content for message in messages],
            [message.content.strip() for message in messages],
        ):
            nonce = secrets.token_hex(8)
            # A template may cut a piece out of a message and lose both marks. The defused piece
            # differs from the plain one, so the comparison below fails.
            defused = [_defuse(text, special) for text in contents]
            marked = [f"<{nonce}[{text}]{nonce}>" for text in defused]
            originals = dict(zip(defused, contents, strict=True))
            parts = _split(self._text(marked, messages, values), nonce, originals)
            if parts is not None and "".join(part.text for part in parts) == plain:
                return parts
        defused = [_defuse(message.content, special) for message in messages]
        return [Part(text=self._text(defused, messages, values), literal=True)]

    def _text(self, contents: list[str], messages: list[Message], values: dict[str, Any]) -> str:
        """Return the text of one rendering, within the limits."""
        filled = [
            msgspec.structs.replace(message, content=content)
            for message, content in zip(messages, contents, strict=True)
        ]
        given = {**values, "messages": template_messages(filled), "add_generation_prompt": True}
        chunks: list[str] = []
        num_chars = 0
        with _limited_run("refuses this request"):
            for chunk in self._template.generate(given):
                chunks.append(chunk)
                num_chars += len(chunk)
                if num_chars > MAX_OUTPUT_CHARS:
                    raise InvalidField(
                        "the model's chat template writes too much: "
                        f"more than {MAX_OUTPUT_CHARS} characters"
                    )
        return "".join(chunks)

    def _writes_tools(self) -> bool:
        """Return whether the template writes tools into the prompt, by trying it with one."""
        probe = Tools(
            tools=[Tool(name=_PROBE_NAME, parameters='{"type": "object", "properties": {}}')]
        )
        messages = [Message(role="user", content="?")]
        try:
            text = self._text(["?"], messages, {"tools": template_tools(probe)})
        except InvalidField:
            return False
        return _PROBE_NAME in text


_PROBE_NAME = "probe_of_tools"
"""Name of the tool that is used to find out whether a template writes tools."""


def _variables(text: str) -> dict[str, Any]:
    """Return the values that a request adds for the template, without reserved names."""
    values = json.loads(text)
    return {name: value for name, value in values.items() if name not in _RESERVED_NAMES}


_RESERVED_NAMES = {"messages", "tools", "add_generation_prompt", "bos_token", "eos_token"}
"""Names of a template's values that a request cannot set."""


def _defuse_calls(message: Message, special: list[str]) -> Message:
    """Return the message with special tokens broken up in its calls, name and id."""
    if not message.calls and not message.name and not message.call_id:
        return message
    calls = [
        msgspec.structs.replace(
            call,
            name=_defuse(call.name, special),
            arguments=_defuse(call.arguments, special),
            id=_defuse(call.id, special),
        )
        for call in message.calls
    ]
    return msgspec.structs.replace(
        message,
        calls=calls,
        name=_defuse(message.name, special),
        call_id=_defuse(message.call_id, special),
    )


def _defuse_all(value: Any, special: list[str]) -> Any:
    """Return a JSON value with special tokens broken up in all its strings."""
    if isinstance(value, str):
        return _defuse(value, special)
    if isinstance(value, list):
        return [_defuse_all(item, special) for item in value]
    if isinstance(value, dict):
        return {_defuse(name, special): _defuse_all(item, special) for name, item in value.items()}
    return value


@contextmanager
def _limited_run(how: str) -> Iterator[None]:
    """Run a template within limits, and turn every exception into `InvalidField`.

    `how` follows "the model's chat template" in the message.
    """
    try:
        with limited(MAX_RENDER_S, MAX_RENDER_BYTES):
            yield
    except InvalidField:
        raise
    except TimeLimitReached:
        raise InvalidField(
            f"the model's chat template runs too long: more than {MAX_RENDER_S:g} s"
        ) from None
    except (MemoryError, RecursionError):
        raise InvalidField("the model's chat template uses too much memory") from None
    except Exception as error:  # noqa: BLE001 - untrusted code may raise anything
        raise InvalidField(f"the model's chat template {how}: {error}") from None


def _split(text: str, nonce: str, originals: dict[str, str]) -> list[Part] | None:
    """Split a rendered text at its marks, and return the original texts between them.

    Return None if the template removed marks or changed the text between them.
    """
    begin, end = f"<{nonce}[", f"]{nonce}>"
    head, *rest = text.split(begin)
    parts = [Part(text=head, literal=True)]
    for piece in rest:
        content, mark, after = piece.partition(end)
        if not mark or end in after or content not in originals:
            return None
        parts += [Part(text=originals[content]), Part(text=after, literal=True)]
    return None if end in head else [part for part in parts if part.text]


def _defuse(text: str, special: list[str]) -> str:
    """Insert a zero-width space after the first character of each special token's spelling."""
    for spelling in special:
        text = text.replace(spelling, f"{spelling[:1]}\u200b{spelling[1:]}")
    return text


def _to_json(value: Any, indent: int | None = None, **_options: Any) -> str:
    """Return JSON as models were trained on it. Jinja2's own filter sorts keys and escapes HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(date_format: str) -> str:
    return datetime.now().astimezone().strftime(date_format)
