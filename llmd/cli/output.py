"""What a command prints: tables and lines for people, JSON for programs, notes beside them.

Much of it was written by others (session names, answers, names of keys): nothing of that may steer
the terminal of the admin who reads it.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import click

# Controls but newline and tab, marks that turn the direction of text, separators, half surrogates.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_BREAKS = re.compile("[\t\n]")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def on_terminal() -> bool:
    """Tell whether a person reads standard output."""
    return sys.stdout.isatty()


def visible(text: str) -> str:
    """Return `text` with everything that could steer a terminal written out as an escape."""
    return _UNSAFE.sub(_escape, text)


def one_line(text: str) -> str:
    """Do as `visible`, with line breaks and tabs written out too."""
    return _BREAKS.sub(lambda found: "\\n" if found[0] == "\n" else "\\t", visible(text))


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def print_json(value: object, *, indent: int | None = 2) -> None:
    """Print `value` as JSON, readable, and safe to look at."""
    # Within JSON these characters stand only in strings, where the escape means the same.
    click.echo(_UNSAFE.sub(_escape, json.dumps(value, ensure_ascii=False, indent=indent)))


def note(text: str) -> None:
    """Tell the person something beside the output."""
    click.echo(text, err=True)


@contextmanager
def spinner(text: str) -> Iterator[None]:
    """Show a person on standard error that something is under way."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text, spinner="dots"):
        yield


def print_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    empty: str,
    numbers: Sequence[str] = (),
) -> None:
    """Print rows under `headings`, those named in `numbers` to the right; `empty` if there is none.

    Where no terminal is, columns are aligned by spaces and nothing is cut or wrapped.
    """
    lines = [[one_line(cell) for cell in row] for row in rows]
    if not lines:
        note(empty)
        return
    to_right = [heading in numbers for heading in headings]
    if not on_terminal():
        _print_plain([list(headings), *lines], to_right)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading, right in zip(headings, to_right, strict=True):
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for line in lines:
        table.add_row(*map(Text, line))
    Console().print(table)


def _print_plain(lines: Sequence[Sequence[str]], to_right: Sequence[bool]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, to_right, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Print a name and its value a line; further lines of a value stand under its first."""
    pairs = [(name, visible(value)) for name, value in fields]
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        text = value.replace("\n", "\n" + " " * (width + 2))
        click.echo(f"{click.style(name.ljust(width), bold=True)}  {text}")


def moment(at: int | None, *, never: str = "-") -> str:
    """Return unix seconds as local date and time."""
    return never if at is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def size(num_bytes: int) -> str:
    """Return a number of bytes as a person says it."""
    amount = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit in {"B", "kB"} else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def duration(seconds: float) -> str:
    """Return a span of time by its two largest units."""
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def counted(number: int, noun: str) -> str:
    """Return `number` with its noun: `1 key`, `2 keys`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
