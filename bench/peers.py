"""The servers that llmd is compared with."""

from __future__ import annotations

import sys
from urllib.parse import urlsplit

from msgspec import Struct

from bench.servers import HOST, Need, Server, Setup


class LlamaServer(Server):
    """llama.cpp's own server, with `num_slots`, or as many slots as needed if that is 0."""

    def __init__(self, setup: Setup, num_slots: int = 0, more: tuple[str, ...] = ()) -> None:
        super().__init__(f"llama-server -np {num_slots}" if num_slots else "llama-server", setup)
        self._num_slots = num_slots
        self._more = more

    def command(self) -> list[str]:
        """Return the command that starts the server."""
        slots = self._num_slots or self.need.slots
        num_threads = str(self.setup.num_threads)
        return [
            str(self.setup.peer / "llama-server"),
            *("--model", str(self.setup.model), "--offline", "--no-ui"),
            *("--host", HOST, "--port", str(self.port)),
            *("--threads", num_threads, "--threads-batch", num_threads),
            *("--parallel", str(slots), "--ctx-size", str(self.need.context(slots))),
            *self._more,
        ]


class LlamaCppPython(Server):
    """The server of llama-cpp-python, which answers one request after another."""

    ready_path = "/v1/models"

    def __init__(self, setup: Setup) -> None:
        super().__init__("llama-cpp-python", setup)

    def environment(self) -> dict[str, str]:
        """Add the packages that only this server needs, and the libraries that all servers use."""
        more = {"PYTHONPATH": str(self.setup.python_peer)}
        return super().environment() | more | {"LLAMA_CPP_LIB_PATH": str(self.setup.engine)}

    def command(self) -> list[str]:
        """Return the command that starts the server."""
        num_threads = str(self.setup.num_threads)
        return [
            *(sys.executable, "-m", "llama_cpp.server", "--model", str(self.setup.model)),
            *("--host", HOST, "--port", str(self.port), "--n_ctx", str(self.need.context(1))),
            *("--n_threads", num_threads, "--n_threads_batch", num_threads),
            # Otherwise a second request would end the answer to the first.
            *("--interrupt_requests", "false"),
        ]

    def prepare(self) -> None:
        """Link the CPU code into the working directory, where llama.cpp searches for it."""
        for file in self.setup.engine.glob("libggml-cpu-*.so"):
            (self.folder / file.name).symlink_to(file)


class Running(Server):
    """A server that is already running, on any machine, with OpenAI's API."""

    can_restart = False
    is_own = False

    def __init__(self, url: str, key: str, model: str, setup: Setup) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or parts.path.strip("/") not in {"", "v1"}:
            raise ValueError(f"{url} is not llama-server, llama-cpp-python or http://HOST:PORT")
        super().__init__(parts.netloc, setup)
        self.host, self.port = parts.hostname, parts.port or 80
        self.key, self.model = key, model

    def open(self, need: Need) -> None:
        """Keep `need`; the server is used as it is."""
        self.need = need

    def close(self) -> None:
        """Leave the server running."""


class Peers(Struct, frozen=True, kw_only=True):
    """The servers to compare llmd with; each scenario gets new objects for them."""

    names: tuple[str, ...]
    """``llama-server``, ``llama-cpp-python``, or the URL of a running server."""
    slots: tuple[int, ...]
    """Numbers of slots to try llama-server with, where they matter."""
    more: tuple[str, ...]
    """More arguments for llama-server."""
    key: str
    model: str

    def make(self, setup: Setup, *, tries_slots: bool) -> list[Server]:
        """Return the servers. Raise ValueError for an unknown name."""
        found: list[Server] = []
        for name in self.names:
            if name == "llama-server":
                slots = self.slots if tries_slots else (0,)
                found += [LlamaServer(setup, number, self.more) for number in slots]
            elif name == "llama-cpp-python":
                found.append(LlamaCppPython(setup))
            else:
                found.append(Running(name, self.key, self.model, setup))
        return found
