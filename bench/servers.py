"""The servers that are compared. Each is started for one measurement and stopped after it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

from msgspec import Struct

from bench.load import Client, Json
from bench.machine import descendants

HOST = "127.0.0.1"
_START_S = 300.0
_STOP_S = 60.0
_OPENER = build_opener(ProxyHandler({}))

PACKAGED_WEIGHT = 1000
"""CPUWeight= of llmd's unit; systemd's default is 100."""

_PACKAGED_NICE = "-10"
"""Nice value of a session with nearly ten times the default weight, by the kernel's table."""

Options = dict[str, dict[str, Any]]
"""Options of llmd's configuration: section → option → value."""


class Need(Struct, frozen=True, kw_only=True):
    """A scenario's demands on a server: parallel sequences, and tokens for each."""

    slots: int
    tokens_per_slot: int

    def context(self, num_slots: int) -> int:
        """Return the tokens of `num_slots` together, at least 256, which is llmd's minimum."""
        return max(256, num_slots * self.tokens_per_slot)


class Setup(Struct, frozen=True, kw_only=True):
    """Paths and settings that all servers share."""

    model: Path
    engine: Path
    """The folder with the llama.cpp libraries that llmd loads."""
    peer: Path
    """The folder with llama.cpp's programs beside the same libraries."""
    python_peer: Path
    """The folder with the packages that the server in llama-cpp-python needs."""
    num_threads: int


class Server:
    """A server to measure, with the name that the tables show."""

    can_restart = True
    is_own = True
    """Whether this process starts the server; other processes count as a disturbance."""
    ready_path = "/health"

    def __init__(self, name: str, setup: Setup) -> None:
        self.name = name
        self.setup = setup
        self.folder = Path()
        self.need = Need(slots=1, tokens_per_slot=0)
        self.host, self.port, self.key, self.model = HOST, 0, "", "default"
        self._process: subprocess.Popen[bytes] | None = None

    def open(self, need: Need) -> None:
        """Start the server with nothing left of earlier measurements."""
        self.need = need
        self.folder = Path(tempfile.mkdtemp(prefix="llmd-bench-"))
        self.port = _free_port()
        self.prepare()
        self.start()

    def close(self) -> None:
        """Stop the server and remove its files."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def prepare(self) -> None:
        """Write the files that the server needs into its folder."""

    def command(self) -> list[str]:
        """Return the command that starts the server."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Return the server's environment, without settings that were meant for another program."""
        own = ("LLMD_", "LLAMA_")
        return {name: value for name, value in os.environ.items() if not name.startswith(own)}

    def start(self) -> None:
        """Start the process and wait until it answers. Raise `OSError` if it does not."""
        with (self.folder / "log").open("ab") as log:
            # A session of its own, like a service: the kernel divides the cores among sessions.
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(),
                cwd=self.folder,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise OSError(f"{self.name} does not start; the end of its log:\n{self.log_end()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the process, and wait until it has ended."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def client(self, defaults: Json | None = None) -> Client:
        """Return a client that adds `defaults` to each request."""
        return Client(self.host, self.port, self.key, {"model": self.model} | (defaults or {}))

    def log_end(self) -> str:
        """Return the end of the server's log."""
        log = self.folder / "log"
        return log.read_text(errors="replace")[-2000:] if log.exists() else ""

    def outweigh(self) -> bool:
        """Set the CPU weight that llmd's package has. Return False where that is not allowed.

        Linux weighs sessions against each other as it weighs systemd's services.
        """
        if self._process is None:
            return False
        try:
            for pid in (self._process.pid, *descendants(self._process.pid)):
                Path(f"/proc/{pid}/autogroup").write_text(_PACKAGED_NICE)
        except OSError:
            return False
        return True

    @property
    def cpu_code(self) -> str:
        """The variant of llama.cpp's CPU code that the server has loaded, or "" if unknown."""
        if self._process is None:
            return ""
        for pid in (self._process.pid, *descendants(self._process.pid)):
            try:
                maps = Path(f"/proc/{pid}/maps").read_text()
            except OSError:
                continue
            _, _, name = maps.partition("libggml-cpu-")
            if name:
                return name.partition(".")[0]
        return ""

    def _is_ready(self) -> bool:
        try:
            with _OPENER.open(f"http://{HOST}:{self.port}{self.ready_path}", timeout=5) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False


class Llmd(Server):
    """llmd from this checkout. `options` override what the scenario needs."""

    def __init__(self, name: str, setup: Setup, options: Options | None = None) -> None:
        super().__init__(name, setup)
        self._options = options or {}

    def prepare(self) -> None:
        """Write the configuration and create the database with one key."""
        models = self.folder / "models"
        models.mkdir()
        (models / "a.gguf").symlink_to(self.setup.model)
        num_threads = self.setup.num_threads
        num_slots = self._options.get("engine", {}).get("parallel", self.need.slots)
        sections: Options = {
            "server": {"listen": [f"{HOST}:{self.port}"], "max_streams": self.need.slots},
            "store": {"url": f"sqlite:///{self.folder}/llmd.db"},
            "models": {"dir": str(models), "default": "a.gguf"},
            "engine": {
                "threads": num_threads,
                "threads_batch": num_threads,
                "parallel": num_slots,
                "context": self.need.context(num_slots),
            },
            "cache": {"dir": str(self.folder / "cache")},
            "log": {"format": "text"},
        }
        lines: list[str] = []
        for section in sections | self._options:
            values = sections.get(section, {}) | self._options.get(section, {})
            # Strings, numbers and lists are the same in JSON and TOML.
            lines += [f"[{section}]", *(f"{name} = {json.dumps(values[name])}" for name in values)]
        (self.folder / "llmd.toml").write_text("\n".join([*lines, ""]))
        key_file = self.folder / "admin.key"
        done = subprocess.run(
            self._llmd("init", "--key-file", str(key_file)),
            check=False,
            capture_output=True,
            text=True,
            env=self.environment(),
        )
        if done.returncode:
            raise OSError(f"llmd init ended with {done.returncode}: {done.stderr}")
        self.key = key_file.read_text().strip()

    def command(self) -> list[str]:
        """Return the command that starts the server."""
        return self._llmd("serve")

    @property
    def cpu_code(self) -> str:
        """The variant that llmd reports. Its memory maps name every one, because it scores them."""
        url = f"http://{HOST}:{self.port}/status"
        with _OPENER.open(Request(url, headers={"x-api-key": self.key}), timeout=5) as reply:
            return str(json.load(reply)["cpu_variant"] or "")

    def _llmd(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "llmd", "--config", f"{self.folder}/llmd.toml", *arguments]


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])
