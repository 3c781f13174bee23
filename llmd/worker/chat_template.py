"""Render a model's own chat template, which comes from a file that nobody vouches for."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llmd.engine.protocol import Message, Part
from llmd.errors import InvalidField
from llmd.worker.limits import TimeOut, limited

MAX_RENDER_S = 1.0
MAX_RENDER_BYTES = 256 * 1024 * 1024
MAX_OUTPUT_CHARS = 4 * 1024 * 1024
MAX_REPEAT = 1_000_000


class _Generation(Extension):
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
        env = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation])
        env.globals.update(
            raise_exception=_raise, strftime_now=_strftime_now, bos_token=bos, eos_token=eos
        )
        # Within limits too: Jinja2 works out constant expressions when it compiles.
        with _refused("cannot be read"):
            self._template = env.from_string(source)

    def render(self, messages: list[Message], special: list[str]) -> list[Part]:
        """Return the prompt in parts: the template's words literal, the messages' not.

        `special` are the spellings of special tokens, needed where a template changes the
        messages so much that they cannot be told from its own words. Raise `InvalidField`
        when the template refuses the messages, runs too long or writes too much.
        """
        plain = self._text([message.content for message in messages], messages)
        for contents in (
            [message.content for message in messages],
            [message.content.strip() for message in messages],
        ):
            nonce = secrets.token_hex(8)
            # A piece from the middle of a text loses both marks: defused, it gives itself away.
            defused = [_defuse(text, special) for text in contents]
            marked = [f"<{nonce}[{text}]{nonce}>" for text in defused]
            originals = dict(zip(defused, contents, strict=True))
            parts = _split(self._text(marked, messages), nonce, originals)
            if parts is not None and "".join(part.text for part in parts) == plain:
                return parts
        defused = [_defuse(message.content, special) for message in messages]
        return [Part(text=self._text(defused, messages), literal=True)]

    def _text(self, contents: list[str], messages: list[Message]) -> str:
        """Render once, within the limits."""
        values = [
            {"role": message.role, "content": content}
            for message, content in zip(messages, contents, strict=True)
        ]
        chunks: list[str] = []
        num_chars = 0
        with _refused("refuses this"):
            for chunk in self._template.generate(messages=values, add_generation_prompt=True):
                chunks.append(chunk)
                num_chars += len(chunk)
                if num_chars > MAX_OUTPUT_CHARS:
                    raise InvalidField("the model's chat template writes too much")
        return "".join(chunks)


@contextmanager
def _refused(how: str) -> Iterator[None]:
    """Run a template within limits; turn all that may come of it into `InvalidField`."""
    try:
        with limited(MAX_RENDER_S, MAX_RENDER_BYTES):
            yield
    except InvalidField:
        raise
    except TimeOut:
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


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)
