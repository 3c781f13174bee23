"""A chart of rate and latency by the number of clients."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

from bench.comparison import Comparison, Line
from bench.results import RATE

mpl.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

_COLOURS = ("#c2410c", "#1d4ed8", "#0891b2", "#64748b", "#a21caf")


def draw(comparison: Comparison, title: str, file: Path) -> None:
    """Draw tokens per second and the time to the first token by the number of clients."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    _draw_lines(axes[0], comparison, RATE, 1.0)
    axes[0].set_ylabel("tokens/s, all clients together")
    _draw_lines(axes[1], comparison, "first token p50, at once", 1000.0)
    axes[1].set_ylabel("first token, all asking at once (s, median)")
    axes[0].legend(frameon=False)
    figure.suptitle(title)
    figure.savefig(file, dpi=150)
    plt.close(figure)


def _draw_lines(axes: Axes, comparison: Comparison, what: str, divisor: float) -> None:
    lines = [line for line in comparison.lines if line.row.what == what]
    counts = [_num_clients(line) for line in lines]
    for name, colour in zip(comparison.servers, _COLOURS, strict=False):
        found = [
            (count, line.cells[name])
            for count, line in zip(counts, lines, strict=True)
            if name in line.cells
        ]
        numbers = [count for count, _ in found]
        axes.plot(
            numbers,
            [cell.median / divisor for _, cell in found],
            marker="o",
            color=colour,
            label=name,
        )
        axes.fill_between(
            numbers,
            [min(cell.values) / divisor for _, cell in found],
            [max(cell.values) / divisor for _, cell in found],
            color=colour,
            alpha=0.15,
            linewidth=0,
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_xlabel("clients")
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _num_clients(line: Line) -> int:
    return int(line.row.at.split()[0])
