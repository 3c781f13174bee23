"""The servers that llmd is compared with."""

from __future__ import annotations

import sys
from urllib.parse import urlsplit

from msgspec import Struct

from bench.servers import HOST, Need, Place, Server


class LlamaServer(Server):
    """llama.cpp's own server, with as many slots as needed or as many as told."""

    def __init__(self, place: Place, num_slots: int = 0, more: tuple[str, ...] = ()) -> None:
        super().__init__(f"llama-server -np {num_slots}" if num_slots else "llama-server", place)
        self._num_slots = num_slots
        self._more = more

    def command(self) -> list[str]:
        """Return how to start it."""
        slots = self._num_slots or self.need.slots
        num_threads = str(self.place.num_threads)
        return [
            str(self.place.peer / "llama-server"),
            *("--model", str(self.place.model), "--offline", "--no-ui"),
            *("--host", HOST, "--port", str(self.port)),
            *("--threads", num_threads, "--threads-batch", num_threads),
            *("--parallel", str(slots), "--ctx-size", str(self.need.context(slots))),
            *self._more,
        ]


class LlamaCppPython(Server):
    """The server in llama-cpp-python, which answers one request after another."""

    ready_path = "/v1/models"

    def __init__(self, place: Place) -> None:
        super().__init__("llama-cpp-python", place)

    def environment(self) -> dict[str, str]:
        """Add the packages that only it needs, and the libraries that all use."""
        more = {"PYTHONPATH": str(self.place.python_peer)}
        return super().environment() | more | {"LLAMA_CPP_LIB_PATH": str(self.place.engine)}

    def command(self) -> list[str]:
        """Return how to start it."""
        num_threads = str(self.place.num_threads)
        return [
            *(sys.executable, "-m", "llama_cpp.server", "--model", str(self.place.model)),
            *("--host", HOST, "--port", str(self.port), "--n_ctx", str(self.need.context(1))),
            *("--n_threads", num_threads, "--n_threads_batch", num_threads),
            # A second request would else end the first one's answer.
            *("--interrupt_requests", "false"),
        ]

    def prepare(self) -> None:
        """Put the CPU code where it is looked for: in the working directory."""
        for file in self.place.engine.glob("libggml-cpu-*.so"):
            (self.folder / file.name).symlink_to(file)


class Running(Server):
    """A server that runs already, wherever it is, and speaks OpenAI's API."""

    can_restart = False
    is_own = False

    def __init__(self, url: str, key: str, model: str, place: Place) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or parts.path.strip("/") not in {"", "v1"}:
            raise ValueError(
                f"{url} is neither llama-server nor llama-cpp-python nor http://HOST:PORT"
            )
        super().__init__(parts.netloc, place)
        self.host, self.port = parts.hostname, parts.port or 80
        self.key, self.model = key, model

    def open(self, need: Need) -> None:
        """Take it as it is."""
        self.need = need

    def close(self) -> None:
        """Leave it running."""


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
