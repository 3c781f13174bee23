"""Render a model's own chat template, which comes from a file that nobody vouches for."""

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
MAX_RENDER_BYTES = 256 * 1024 * 1024
MAX_OUTPUT_CHARS = 4 * 1024 * 1024
MAX_REPEAT = 1_000_000


class _GenerationTag(Extension):
    """Accept ``{% generation %}``, which marks text for training and means nothing here."""

    tags = {"generation"}  # noqa: RUF012 - Jinja2 declares it as an instance variable

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Sandbox(ImmutableSandboxedEnvironment):
    """The sandbox of Jinja2, without the operators that can fill the memory at once."""

    intercepted_binops = frozenset(["*", "**"])

    def call_binop(
        self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any
    ) -> Any:
        for value in (left, right):
            if isinstance(value, int) and abs(value) > MAX_REPEAT:
                raise jinja2.TemplateError("a number is too large")
        if operator == "**" and isinstance(right, int) and right > 64:
            raise jinja2.TemplateError("an exponent is too large")
        return super().call_binop(context, operator, left, right)


class ChatTemplate:
    """A compiled chat template. For the main thread only: its time limit is a signal."""

    def __init__(self, source: str, *, bos: str, eos: str) -> None:
        """Compile. Raise `InvalidField` when `source` is no template that can be used."""
        env = _Sandbox(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationTag]
        )
        env.globals.update(
            raise_exception=_raise, strftime_now=_strftime_now, bos_token=bos, eos_token=eos
        )
        env.filters["tojson"] = _to_json
        # Within limits too: Jinja2 works out constant expressions when it compiles.
        with _limited_run("cannot be read"):
            self._template = env.from_string(source)
        # Tools in a form that nobody here can read again are told in a general way instead.
        self.knows_tools = has_known_call_format(source) and self._writes_tools()

    def render(self, prompt: ChatPrompt, special: list[str]) -> list[Part]:
        """Return the prompt in parts: the template's words literal, the messages' not.

        `special` are the spellings of special tokens, needed where a template changes the
        messages so much that they cannot be told from its own words. Raise `InvalidField`
        when the template refuses the messages, runs too long or writes too much.
        """
        messages = prompt.messages
        if not self.knows_tools:
            messages = plain_messages(messages, prompt.tools)
        # What is not marked could spell a special token.
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
            # A piece from the middle of a text loses both marks: defused, it gives itself away.
            defused = [_defuse(text, special) for text in contents]
            marked = [f"<{nonce}[{text}]{nonce}>" for text in defused]
            originals = dict(zip(defused, contents, strict=True))
            parts = _split(self._text(marked, messages, values), nonce, originals)
            if parts is not None and "".join(part.text for part in parts) == plain:
                return parts
        defused = [_defuse(message.content, special) for message in messages]
        return [Part(text=self._text(defused, messages, values), literal=True)]

    def _text(self, contents: list[str], messages: list[Message], values: dict[str, Any]) -> str:
        """Render once, within the limits."""
        filled = [
            msgspec.structs.replace(message, content=content)
            for message, content in zip(messages, contents, strict=True)
        ]
        given = {**values, "messages": template_messages(filled), "add_generation_prompt": True}
        chunks: list[str] = []
        num_chars = 0
        with _limited_run("refuses this"):
            for chunk in self._template.generate(given):
                chunks.append(chunk)
                num_chars += len(chunk)
                if num_chars > MAX_OUTPUT_CHARS:
                    raise InvalidField("the model's chat template writes too much")
        return "".join(chunks)

    def _writes_tools(self) -> bool:
        """Try whether the template tells the model of tools."""
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


def _variables(text: str) -> dict[str, Any]:
    """Return the values that a request adds for the template, but none of its own names."""
    values = json.loads(text)
    return {name: value for name, value in values.items() if name not in _RESERVED_NAMES}


_RESERVED_NAMES = {"messages", "tools", "add_generation_prompt", "bos_token", "eos_token"}


def _defuse_calls(message: Message, special: list[str]) -> Message:
    """Return the message with special tokens broken where its text is not marked."""
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
    """Return a JSON value with the special tokens in all its strings broken."""
    if isinstance(value, str):
        return _defuse(value, special)
    if isinstance(value, list):
        return [_defuse_all(item, special) for item in value]
    if isinstance(value, dict):
        return {_defuse(name, special): _defuse_all(item, special) for name, item in value.items()}
    return value


@contextmanager
def _limited_run(how: str) -> Iterator[None]:
    """Run a template within limits; turn all that may come of it into `InvalidField`."""
    try:
        with limited(MAX_RENDER_S, MAX_RENDER_BYTES):
            yield
    except InvalidField:
        raise
    except TimeLimitReached:
        raise InvalidField("the model's chat template runs too long") from None
    except (MemoryError, RecursionError):
        raise InvalidField("the model's chat template uses too much memory") from None
    except Exception as error:  # noqa: BLE001 - a stranger's program may raise anything
        raise InvalidField(f"the model's chat template {how}: {error}") from None


def _split(text: str, nonce: str, originals: dict[str, str]) -> list[Part] | None:
    """Cut a rendered text at its marks and put the original texts between them.

    None when the template tore the marks apart or changed the text between them.
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
    """Break each special token's spelling by a zero-width space after its first character."""
    for spelling in special:
        text = text.replace(spelling, f"{spelling[:1]}\u200b{spelling[1:]}")
    return text


def _to_json(value: Any, indent: int | None = None, **_options: Any) -> str:
    """Write JSON as models were trained on it: Jinja2's own is for pages, sorted and escaped."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)
