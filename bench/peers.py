"""Which servers llmd is compared with."""

from __future__ import annotations

from msgspec import Struct

from bench.servers import LlamaCppPython, LlamaServer, Place, Running, Server


class Peers(Struct, frozen=True, kw_only=True):
    """The servers that were asked for, to be made anew for each scenario."""

    names: tuple[str, ...]
    """``llama-server``, ``llama-cpp-python``, or the URL of one that runs."""
    slots: tuple[int, ...]
    """Numbers of slots to try llama-server with, where that matters."""
    more: tuple[str, ...]
    """More words for llama-server's command line."""
    key: str
    model: str

    def make(self, place: Place, *, tries_slots: bool) -> list[Server]:
        """Return them. Raise ValueError for a name that is none of these."""
        found: list[Server] = []
        for name in self.names:
            if name == "llama-server":
                slots = self.slots if tries_slots else (0,)
                found += [LlamaServer(place, number, self.more) for number in slots]
            elif name == "llama-cpp-python":
                found.append(LlamaCppPython(place))
            else:
                found.append(Running(name, self.key, self.model, place))
        return found
