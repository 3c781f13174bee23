"""Medians, spreads and ratios over the rounds of one scenario, and whether goals are met."""

from __future__ import annotations

from msgspec import Struct

from bench.goals import Goal, goal_of
from bench.results import Record, Row, median


class Cell(Struct, frozen=True, kw_only=True):
    """A server's values in one row, over all rounds."""

    values: list[float]
    ratio: float | None
    """The first server's median divided by this one's."""

    @property
    def median(self) -> float:
        """The median of the values."""
        return median(self.values)


class Line(Struct, frozen=True, kw_only=True):
    """One row of a scenario's table."""

    row: Row
    cells: dict[str, Cell]
    goal: Goal | None
    reached: float | None
    """The value that is compared with the goal."""


class Comparison:
    """The records of one scenario. The first server is compared with each of the others."""

    def __init__(self, scenario: str, records: list[Record]) -> None:
        self.scenario = scenario
        self.servers = list(dict.fromkeys(record.server for record in records))
        self.errors = [
            f"{record.server}, round {record.round}: {error}"
            for record in records
            for error in record.errors
        ]
        self._values: dict[Row, dict[str, list[float]]] = {}
        for record in records:
            for reading in record.readings:
                row = self._values.setdefault(reading.row, {})
                row.setdefault(record.server, []).append(reading.value)

    @property
    def lines(self) -> list[Line]:
        """The rows of the table, grouped by `at`, in the order in which they were measured."""
        points = list(dict.fromkeys(row.at for row in self._values))
        rows = sorted(self._values, key=lambda row: points.index(row.at))
        return [self._line(row, self._values[row]) for row in rows]

    def _line(self, row: Row, values: dict[str, list[float]]) -> Line:
        first = median(values.get(self.servers[0], []))
        cells = {
            name: Cell(values=found, ratio=self._ratio(row, name, first, median(found)))
            for name, found in values.items()
        }
        goal = goal_of(self.scenario, row.at, row.what)
        reached = None
        if goal is not None and self.servers[0] in cells:
            reached = first if not goal.against else self._against(goal.against, row, cells)
        return Line(row=row, cells=cells, goal=goal, reached=reached)

    def _ratio(self, row: Row, name: str, first: float, other: float) -> float | None:
        if name == self.servers[0] or not row.is_compared or not first or not other:
            return None
        return first / other

    def _against(self, against: str, row: Row, cells: dict[str, Cell]) -> float | None:
        """Return the ratio to one server, or to the best of the peers."""
        if against in cells:
            return cells[against].ratio
        ratios = [
            cell.ratio
            for name, cell in cells.items()
            if cell.ratio is not None and not name.startswith(self.servers[0])
        ]
        if against != "peer" or not ratios:
            return None
        return min(ratios) if row.is_more_better else max(ratios)
