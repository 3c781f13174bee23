"""Report the results: tables for people, a file for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from bench.comparison import Cell, Comparison, Line
from bench.results import SHARE, Record


class Report(Struct, frozen=True, kw_only=True):
    """One run, as it is saved."""

    facts: dict[str, str]
    settings: dict[str, Any]
    records: list[Record]

    def save(self, file: Path) -> None:
        """Write the report as JSON."""
        file.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")


def show_facts(console: Console, facts: dict[str, str]) -> None:
    """Print the machine's facts, one per line."""
    for name, value in facts.items():
        console.print(f"[dim]{name + ':':14}[/dim] {value}", highlight=False)


def show(console: Console, title: str, comparison: Comparison, records: list[Record]) -> None:
    """Print one scenario's table, its errors, and the reasons to doubt it."""
    num_rounds = max(record.round for record in records)
    rounds = f"{num_rounds} round{'s' if num_rounds > 1 else ''}"
    caption = f"medians of {rounds} (min to max); ×: {comparison.servers[0]} divided by this server"
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    table.add_column("")
    table.add_column("")
    for name in comparison.servers:
        table.add_column(name, justify="right")
    table.add_column("goal", justify="right")
    last = ""
    for line in comparison.lines:
        if last not in {"", line.row.at}:
            table.add_section()
        cells = [_cell(line.cells.get(name), line.row.unit) for name in comparison.servers]
        what = line.row.what if line.row.unit == SHARE else f"{line.row.what}, {line.row.unit}"
        what = line.row.what if line.row.what == line.row.unit else what
        table.add_row("" if line.row.at == last else line.row.at, what, *cells, _goal(line))
        last = line.row.at
    console.print(table)
    for text in [*comparison.errors[:10], *_doubts(records)]:
        console.print(f"  [yellow]{text}[/yellow]", highlight=False, markup=True)
    if len(comparison.errors) > 10:
        console.print(f"  [yellow]and {len(comparison.errors) - 10} more errors[/yellow]")
    console.print()


def goals_reached(comparisons: list[Comparison]) -> str:
    """Return how many of the measured goals were reached, as text."""
    met = [
        line.goal.is_met(line.reached)
        for comparison in comparisons
        for line in comparison.lines
        if line.goal is not None and line.reached is not None
    ]
    return f"{sum(met)} of {len(met)} goals reached"


def _cell(cell: Cell | None, unit: str) -> str:
    if cell is None:
        return "-"
    digits = {"ms": 0, "tokens": 0, SHARE: 3}.get(unit, 1)
    text = f"{cell.median:.{digits}f}"
    if len(cell.values) > 1:
        text += f" ({min(cell.values):.{digits}f} to {max(cell.values):.{digits}f})"
    return text if cell.ratio is None else f"{text} ×{cell.ratio:.2f}"


def _goal(line: Line) -> str:
    if line.goal is None:
        return ""
    if line.reached is None:
        return line.goal.text
    colour = "green" if line.goal.is_met(line.reached) else "red"
    return f"[{colour}]{line.reached:.2f}[/{colour}] {line.goal.text}"


def _doubts(records: list[Record]) -> list[str]:
    """Return the reasons to doubt the results."""
    found = [
        f"{record.server}, round {record.round}: {warning}"
        for record in records
        if record.disturbance is not None
        for warning in record.disturbance.warnings
    ]
    codes = {record.cpu_code for record in records if record.cpu_code}
    if len(codes) > 1:
        found.append(f"not the same CPU code: {', '.join(sorted(codes))}")
    return found
