"""Compile and run the chat template of a model file, which is untrusted code, within limits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.meta
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llmd.errors import InvalidField
from llmd.worker.prompt.limits import TimeLimitReached, limited

MAX_RENDER_S = 1.0
"""Limit of processor time for compiling a template, and for each rendering."""

MAX_RENDER_BYTES = 256 * 1024 * 1024
"""Memory that a template may take beyond what the process uses already."""

MAX_OUTPUT_CHARS = 4 * 1024 * 1024
"""Length limit of a rendered prompt."""

MAX_FACTOR = 1_000_000
"""Largest integer that may be an operand of ``*`` or ``**`` in a template."""

MAX_EXPONENT = 64
"""Largest integer exponent that a template may use."""

_LIST_METHODS = frozenset({"append", "extend", "insert", "pop"})
"""Methods by which a template may change lists that it made itself."""


class TemplateRefusal(InvalidField):
    """The template raised an error, on its own account or by a mistake in it."""


class GenerationTag(Extension):
    """Accept ``{% generation %}``, which marks text for training and has no effect here."""

    tags = {"generation"}  # noqa: RUF012 - Jinja2 declares it as an instance variable

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return the nodes between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Given(list[Any]):
    """A list that a template is given and cannot change, unlike the lists that it makes."""


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

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        # Some templates collect the ids of calls in a list.
        if type(obj) is list and attr in _LIST_METHODS:
            return True
        return super().is_safe_attribute(obj, attr, value)


class Template:
    """A compiled template. Use it in the main thread only: its time limit is a signal."""

    def __init__(self, source: str, *, bos: str, eos: str) -> None:
        """Compile a template. Raise `InvalidField` if `source` is not a usable template."""
        env = _Sandbox(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, GenerationTag]
        )
        env.globals.update(
            raise_exception=_raise, strftime_now=_strftime_now, bos_token=bos, eos_token=eos
        )
        env.filters["tojson"] = _to_json
        # Limit compiling too, because Jinja2 evaluates constant expressions then.
        with _limited_run("cannot be compiled"):
            self._template = env.from_string(source)
            self.variables = jinja2.meta.find_undeclared_variables(env.parse(source))

    def render(self, values: dict[str, Any]) -> str:
        """Return the text of one rendering.

        Raise `InvalidField` if the template refuses the values, runs too long or writes too much.
        """
        given = {**_dates(), **{name: _given(value) for name, value in values.items()}}
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

    def needs(self, name: str, values: dict[str, Any]) -> bool:
        """Return whether the template fails without a variable instead of having a default."""
        if name not in self.variables:
            return False
        try:
            self.render(values)
        except InvalidField:
            return False
        try:
            self.render({**values, name: jinja2.StrictUndefined(name=name)})
        except InvalidField:
            return True
        return False


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
        raise TemplateRefusal(f"the model's chat template {how}: {error}") from None


def _given(value: Any) -> Any:
    """Return a value whose lists the template cannot change."""
    if isinstance(value, list):
        return _Given(_given(item) for item in value)
    if isinstance(value, dict):
        return {name: _given(item) for name, item in value.items()}
    return value


def _dates() -> dict[str, str]:
    """Return today's date in the variables and forms of llama.cpp's server."""
    now = datetime.now().astimezone()
    return {"date_string": now.strftime("%d %b %Y"), "datetime": now.strftime("%b %d %Y")}


def _to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    """Return JSON as models were trained on it. Jinja2's own filter sorts keys and escapes HTML.

    Filters such as ``map`` give iterators, which are written as lists.
    """
    return json.dumps(
        value,
        ensure_ascii=bool(options.get("ensure_ascii", False)),
        indent=indent,
        separators=options.get("separators"),
        sort_keys=bool(options.get("sort_keys", False)),
        default=_as_list,
    )


def _as_list(value: object) -> list[object]:
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(date_format: str) -> str:
    return datetime.now().astimezone().strftime(date_format)
