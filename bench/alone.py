"""Servers that are measured without HTTP: what the libraries and the engine give by themselves."""

from __future__ import annotations

from bench.servers import Need, Place, Server


class Alone(Server):
    """A server that is run for one measurement and tells tokens a second itself."""

    can_restart = False

    def __init__(self, name: str, place: Place) -> None:
        super().__init__(name, place)

    def open(self, need: Need) -> None:
        """Keep what is needed; there is nothing to start."""
        self.need = need

    def close(self) -> None:
        """Leave nothing behind."""

    def measure(self, sizes: tuple[int, ...], num_prompt: int, num_answer: int) -> dict[int, float]:
        """Return tokens a second by number of sequences side by side."""
        raise NotImplementedError
