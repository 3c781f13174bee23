"""Output of commands: tables and lines for people, JSON for programs, notes on standard error.

Much of the text was written by others (session names, answers, names of keys). None of it may
control the terminal of the admin who reads it.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import click

# Control characters except newline and tab, marks that change the direction of text, line and
# paragraph separators, lone surrogates.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_BREAKS = re.compile("[\t\n]")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def on_terminal() -> bool:
    """Return whether standard output is a terminal."""
    return sys.stdout.isatty()


def visible(text: str) -> str:
    """Return `text` with every character that could control a terminal escaped."""
    return _UNSAFE.sub(_escape, text)


def one_line(text: str) -> str:
    """Return the same as `visible`, with line breaks and tabs escaped too."""
    return _BREAKS.sub(lambda found: "\\n" if found[0] == "\n" else "\\t", visible(text))


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def print_json(value: object, *, indent: int | None = 2) -> None:
    """Print `value` as indented JSON that cannot control a terminal."""
    # In JSON these characters occur only within strings, where the escape means the same.
    click.echo(_UNSAFE.sub(_escape, json.dumps(value, ensure_ascii=False, indent=indent)))


def note(text: str) -> None:
    """Print a message on standard error."""
    click.echo(text, err=True)


@contextmanager
def spinner(text: str) -> Iterator[None]:
    """Show that work is in progress, if standard error is a terminal."""
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
    """Print rows under `headings`, or note `empty` if there are none.

    The columns in `numbers` are aligned to the right. Without a terminal, nothing is wrapped.
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
    """Print each name and its value on a line; indent further lines of a value to its first."""
    pairs = [(name, visible(value)) for name, value in fields]
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        text = value.replace("\n", "\n" + " " * (width + 2))
        click.echo(f"{click.style(name.ljust(width), bold=True)}  {text}")


def moment(at: int | None, *, never: str = "-") -> str:
    """Return Unix seconds as local date and time."""
    return never if at is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def size(num_bytes: int) -> str:
    """Return a number of bytes with its unit, such as `1.5 GB`."""
    amount = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit in {"B", "kB"} else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def duration(seconds: float) -> str:
    """Return a duration in its two largest units, such as `1 d 2 h`."""
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
