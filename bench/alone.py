"""Measurements without HTTP: how fast the libraries and the engine are by themselves."""

from __future__ import annotations

from bench.servers import Need, Server, Setup


class Alone(Server):
    """A program that runs for one measurement and reports its tokens per second itself."""

    can_restart = False

    def __init__(self, name: str, setup: Setup) -> None:
        super().__init__(name, setup)

    def open(self, need: Need) -> None:
        """Keep `need`; there is nothing to start."""
        self.need = need

    def close(self) -> None:
        """Do nothing: there is nothing to stop."""

    def measure(self, sizes: tuple[int, ...], num_prompt: int, num_answer: int) -> dict[int, float]:
        """Return the tokens per second for each number of parallel sequences."""
        raise NotImplementedError
