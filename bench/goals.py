"""What llmd sets out to reach, against the best of its peers or against itself."""

from __future__ import annotations

from msgspec import Struct

from bench.results import RATE
from bench.servers import PACKAGED_WEIGHT

NO_LOOKUP = "llmd, no lookup"
"""llmd that guesses no tokens."""


class Goal(Struct, frozen=True, kw_only=True):
    """A ratio that the first server's median shall reach in one row of the table.

    `against` names what it is divided by: "peer" is the best of the other servers, a name that
    one of them; "" leaves it as it is.
    """

    scenario: str
    at: str
    what: str
    limit: float
    against: str = "peer"
    at_least: bool = False

    def is_met(self, ratio: float) -> bool:
        """Tell whether a ratio reaches it."""
        return ratio >= self.limit if self.at_least else ratio <= self.limit

    @property
    def text(self) -> str:
        """The limit as the table has it."""
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"


def _rate(scenario: str, at: str, limit: float, against: str = "peer") -> Goal:
    return Goal(scenario=scenario, at=at, what=RATE, limit=limit, against=against, at_least=True)


def _at_once(at: str) -> Goal:
    return Goal(scenario="load", at=at, what="first token p50, at once", limit=0.7)


def _beside(at: str) -> Goal:
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
    _beside("8 clients"),
    _beside(f"8 clients, weight {PACKAGED_WEIGHT}"),
    _rate("batch", "8 side by side", 0.95),
    _rate("batch", "16 side by side", 0.95),
)


def goal_of(scenario: str, at: str, what: str) -> Goal | None:
    """Return the goal of a row, if it has one."""
    wanted = (scenario, at, what)
    return next((goal for goal in GOALS if (goal.scenario, goal.at, goal.what) == wanted), None)
