"""The goals of llmd, relative to the best of its peers or to llmd itself."""

from __future__ import annotations

from msgspec import Struct

from bench.results import RATE
from bench.servers import PACKAGED_WEIGHT

NO_LOOKUP = "llmd, no lookup"
"""Name of the server that is llmd without drafts."""


class Goal(Struct, frozen=True, kw_only=True):
    """A limit for the first server's median in one row of the table.

    The median is divided by that of the server `against`, where "peer" stands for the best of
    the other servers. With "" it is compared undivided.
    """

    scenario: str
    at: str
    what: str
    limit: float
    against: str = "peer"
    at_least: bool = False

    def is_met(self, ratio: float) -> bool:
        """Return whether `ratio` reaches the goal."""
        return ratio >= self.limit if self.at_least else ratio <= self.limit

    @property
    def text(self) -> str:
        """The limit as the table shows it."""
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"


def _rate(scenario: str, at: str, limit: float, against: str = "peer") -> Goal:
    return Goal(scenario=scenario, at=at, what=RATE, limit=limit, against=against, at_least=True)


def _at_once(at: str) -> Goal:
    return Goal(scenario="load", at=at, what="first token p50, at once", limit=0.7)


def _beside_neighbour(at: str) -> Goal:
    return Goal(scenario="busy", at=at, what="busy : quiet", limit=0.6, against="", at_least=True)


GOALS = (
    _rate("load", "1 client", 1.0),
    _rate("load", "4 clients", 1.0),
    _rate("load", "8 clients", 1.05),
    _rate("load", "16 clients", 1.1),
    _at_once("8 clients"),
    _at_once("16 clients"),
    Goal(scenario="session", at="turn 10", what="first token", limit=1.0),
    Goal(scenario="window", at="turn 50, 5 kept", what=": turn 5", limit=1.3, against=""),
    Goal(scenario="juggle", at="32 sessions, 8 sequences", what="all turns", limit=0.9),
    Goal(scenario="restart", at="4096 tokens", what="restarted : cold", limit=0.05, against=""),
    Goal(scenario="restart", at="4096 tokens", what="first token, restarted", limit=0.1),
    _rate("copy", "edited text", 1.3, NO_LOOKUP),
    _rate("copy", "free text", 0.98, NO_LOOKUP),
    Goal(scenario="stall", at="2048 tokens come to 4 streams", what="worst gap", limit=0.7),
    _beside_neighbour("8 clients"),
    _beside_neighbour(f"8 clients, weight {PACKAGED_WEIGHT}"),
    _rate("batch", "8 side by side", 0.95),
    _rate("batch", "16 side by side", 0.95),
)


def goal_of(scenario: str, at: str, what: str) -> Goal | None:
    """Return the goal of a row, if it has one."""
    wanted = (scenario, at, what)
    return next((goal for goal in GOALS if (goal.scenario, goal.at, goal.what) == wanted), None)
