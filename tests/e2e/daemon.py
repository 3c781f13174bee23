"""The real daemon in a process of its own, with its data in a temporary folder."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.client import HOST, Client
from tests.e2e.waiting import PATIENCE_S, until

Options = dict[str, dict[str, Any]]
"""[section] → option → value."""


class Daemon:
    """One installation: configuration, database and models, with the daemon running or not."""

    def __init__(self, folder: Path, model: Path, options: Options | None = None) -> None:
        self.folder = folder
        self.port = _free_port()
        self.config = folder / "llmd.toml"
        self.models = folder / "models"
        self.models.mkdir()
        (self.models / "a.gguf").symlink_to(model)
        self._log = folder / "llmd.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.configure(options or {})
        self.run("init", "--key-file", str(folder / "admin.key"))
        self.key = (folder / "admin.key").read_text().strip()
        self.client = Client(self.port, self.key)

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.folder / "llmd.db"

    @property
    def log(self) -> str:
        """All that was logged since the first start."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def pid(self) -> int:
        """The process id of the running daemon."""
        assert self._process is not None, "the daemon does not run"
        return self._process.pid

    def configure(self, options: Options) -> None:
        """Write the configuration: what all tests need, and `options` over it."""
        sections: Options = {
            "server": {"listen": [f"{HOST}:{self.port}"]},
            "store": {"url": f"sqlite:///{self.database}"},
            "models": {"dir": str(self.models), "default": "a.gguf"},
            "engine": {"context": 8192},
            "cache": {"dir": str(self.folder / "cache")},
            "auth": {"argon2": "cheapest"},
            "log": {"format": "text"},
        }
        lines: list[str] = []
        for section, values in sections.items():
            lines.append(f"[{section}]")
            for name, value in (values | options.get(section, {})).items():
                lines.append(f"{name} = {json.dumps(value)}")
        self.config.write_text("\n".join(lines) + "\n")

    def start(self, *, wait: bool = True) -> None:
        """Start the process and, unless told not to, wait until a token could be generated."""
        assert self._process is None, "the daemon runs already"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command("serve"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
            )
        if wait:
            self.wait_healthy()

    def wait_healthy(self) -> None:
        """Wait until `/health` says 200."""

        def is_healthy() -> bool:
            assert self._process is not None
            code = self._process.poll()
            assert code is None, f"the daemon ended with {code}:\n{self.log}"
            try:
                return Client(self.port, None).get("/health").status == 200
            except OSError:
                return False

        until(is_healthy, "GET /health answers 200", every_s=0.1)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the daemon alone."""
        os.kill(self.pid, number)

    def wait_end(self) -> int:
        """Wait for the end of the process and return its exit code."""
        assert self._process is not None
        code = self._process.wait(PATIENCE_S)
        self._process = None
        return code

    def stop(self) -> int:
        """End it in good order and return its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait_end()

    def kill(self) -> None:
        """End it as a crash does, and wait until its worker is gone too."""
        workers = self.worker_pids()
        self.signal(signal.SIGKILL)
        self.wait_end()
        until(lambda: not any(map(is_alive, workers)), "the worker ends with its daemon")

    def close(self) -> None:
        """End it however it can be ended."""
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._process = None

    def worker_pids(self) -> list[int]:
        """Return the process ids of the workers, the oldest first."""
        children = Path(f"/proc/{self.pid}/task").glob("*/children")
        return sorted(int(pid) for file in children for pid in file.read_text().split())

    def worker_pid(self) -> int:
        """Return the process id of the only worker."""
        (pid,) = self.worker_pids()
        return pid

    def user(self, name: str = "somebody") -> Client:
        """Return a client with a new key of a user."""
        made = self.client.call("POST", "/auth/key", {"name": name}).body
        return Client(self.port, made["key"])

    def put_profile(self, name: str, **fields: Any) -> None:
        """Make a profile."""
        reply = self.client.call("PUT", f"/profiles/{name}", fields)
        assert reply.status in {200, 201}, reply

    def streams(self) -> Any:
        """Return how many answers are made and how many requests wait."""
        return self.client.get("/status").body["streams"]

    def wait_streams(self, *, active: int, queued: int) -> None:
        """Wait until so many answers are made and so many requests wait."""

        def is_so() -> bool:
            streams = self.streams()
            return (streams["active"], streams["queued"]) == (active, queued)

        until(is_so, f"{active} active, {queued} queued")

    def wait_idle(self) -> None:
        """Wait until neither the daemon nor its worker has anything to do."""
        self.wait_streams(active=0, queued=0)
        idle = {"running": 0, "waiting": 0}

        def is_idle() -> bool:
            sequences = self.client.get("/status").body["sequences"]
            return bool(sequences.items() >= idle.items())

        until(is_idle, "no sequence runs or waits")

    def run(self, *arguments: str, code: int = 0, **variables: str) -> str:
        """Run a command of llmd and return what it prints; it must end with `code`."""
        done = subprocess.run(
            self._command(*arguments),
            check=False,
            capture_output=True,
            text=True,
            env=environment() | variables,
            timeout=PATIENCE_S,
        )
        assert done.returncode == code, done
        return done.stdout

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "llmd", "--config", str(self.config), *arguments]


Starter = Callable[..., Daemon]
"""The fixture `start_daemon`: options as keyword arguments, one a section."""


def environment() -> dict[str, str]:
    """Return the environment of the tests without what would change the daemon's answers."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LLMD_")}


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and waits for its parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _free_port() -> int:
    """Return a port below those that the system gives to clients.

    A client that calls again and again while nothing listens could else connect to itself.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as sock:
            try:
                sock.bind((HOST, port))
            except OSError:
                continue
            return port
