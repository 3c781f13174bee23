"""The real daemon as a process, with its data in a temporary folder."""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.client import HOST, Client
from tests.e2e.waiting import PATIENCE_S, until

Options = dict[str, dict[str, Any]]
"""Options of a configuration: section → option → value."""


class Daemon:
    """An installation: configuration, database and models, with the daemon running or not."""

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
        database, self.key = _initialised()
        self.database.write_bytes(database)
        self.database.chmod(0o600)
        (folder / "admin.key").write_text(self.key)
        self.client = Client(self.port, self.key)

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.folder / "llmd.db"

    @property
    def log(self) -> str:
        """The log since the first start."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def pid(self) -> int:
        """The process id of the running daemon."""
        assert self._process is not None, "the daemon does not run"
        return self._process.pid

    def configure(self, options: Options) -> None:
        """Write the configuration that all tests need, overridden by `options`."""
        sections: Options = {
            "server": {"listen": [f"{HOST}:{self.port}"]},
            "store": {"url": f"sqlite:///{self.database}"},
            "models": {"dir": str(self.models), "default": "a.gguf"},
            "engine": {"context": 8192},
            "cache": {"dir": str(self.folder / "cache")},
            "auth": {"argon2": "cheapest"},
            "log": {"format": "text"},
        }
        sections = {name: values | options.get(name, {}) for name, values in sections.items()}
        _write_options(self.config, sections)

    def start(self, *, wait: bool = True) -> None:
        """Start the process; with `wait`, until the model can answer."""
        assert self._process is None, "the daemon runs already"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_on_own_cores(), *command(self.config, "serve")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
            )
        if wait:
            self.wait_healthy()

    def wait_healthy(self) -> None:
        """Wait until `/health` answers 200."""

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
        """Send a signal to the daemon, but not to its worker."""
        os.kill(self.pid, number)

    def wait_end(self) -> int:
        """Wait for the end of the process and return its exit code."""
        assert self._process is not None
        code = self._process.wait(PATIENCE_S)
        self._process = None
        return code

    def stop(self) -> int:
        """Stop the daemon in order and return its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait_end()

    def kill(self) -> None:
        """Kill the daemon like a crash, and wait until its worker is gone too."""
        workers = self.worker_pids()
        self.signal(signal.SIGKILL)
        self.wait_end()
        until(lambda: not any(map(is_alive, workers)), "the worker ends with its daemon")

    def close(self) -> None:
        """Stop the process, by SIGKILL if SIGTERM does not help."""
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
        """Return the process ids of the workers, lowest first."""
        children = Path(f"/proc/{self.pid}/task").glob("*/children")
        return sorted(int(pid) for file in children for pid in file.read_text().split())

    def worker_pid(self) -> int:
        """Return the process id of the only worker."""
        (pid,) = self.worker_pids()
        return pid

    def user(self, name: str = "somebody") -> Client:
        """Return a client with a new user key."""
        made = self.client.call("POST", "/auth/key", {"name": name}).body
        return Client(self.port, made["key"])

    def put_profile(self, name: str, **fields: Any) -> None:
        """Create or replace a profile."""
        reply = self.client.call("PUT", f"/profiles/{name}", fields)
        assert reply.status in {200, 201}, reply

    def streams(self) -> Any:
        """Return the numbers of active and queued requests."""
        return self.client.get("/status").body["streams"]

    def wait_streams(self, *, active: int, queued: int) -> None:
        """Wait until these are the numbers of active and queued requests."""

        def is_so() -> bool:
            streams = self.streams()
            return (streams["active"], streams["queued"]) == (active, queued)

        until(is_so, f"{active} active, {queued} queued")

    def wait_idle(self) -> None:
        """Wait until neither the daemon nor its worker has any work."""
        self.wait_streams(active=0, queued=0)
        idle = {"running": 0, "waiting": 0}

        def is_idle() -> bool:
            sequences = self.client.get("/status").body["sequences"]
            return bool(sequences.items() >= idle.items())

        until(is_idle, "no sequence runs or waits")

    def run(self, *arguments: str, code: int = 0, **variables: str) -> str:
        """Run a command of llmd and return its output; it must end with `code`."""
        return _run(self.config, *arguments, code=code, **variables)


Starter = Callable[..., Daemon]
"""The type of the fixture `start_daemon`: a model, and options by section as keywords."""


def command(config: Path, *arguments: str) -> list[str]:
    """Return a command of llmd as a list of words."""
    return [sys.executable, "-m", "llmd", "--config", str(config), *arguments]


def environment() -> dict[str, str]:
    """Return the environment of the tests without the variables that llmd reads."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LLMD_")}


def is_alive(pid: int) -> bool:
    """Return whether a process runs. A zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _run(config: Path, *arguments: str, code: int = 0, **variables: str) -> str:
    done = subprocess.run(
        command(config, *arguments),
        check=False,
        capture_output=True,
        text=True,
        env=environment() | variables,
        timeout=PATIENCE_S,
    )
    assert done.returncode == code, done
    return done.stdout


def _write_options(file: Path, sections: Options) -> None:
    lines: list[str] = []
    for section, values in sections.items():
        # JSON's strings, numbers and lists are TOML's too.
        lines += [f"[{section}]", *(f"{name} = {json.dumps(values[name])}" for name in values), ""]
    file.write_text("\n".join(lines))


@functools.cache
def _initialised() -> tuple[bytes, str]:
    """Return a new database and its admin's key, which all daemons of this process start with."""
    with tempfile.TemporaryDirectory() as name:
        config, database, key_file = (Path(name, file) for file in ("llmd.toml", "db", "key"))
        options: Options = {
            "store": {"url": f"sqlite:///{database}"},
            "auth": {"argon2": "cheapest"},
        }
        _write_options(config, options)
        _run(config, "init", "--key-file", str(key_file))
        return database.read_bytes(), key_file.read_text().strip()


def _on_own_cores() -> list[str]:
    """Return a command prefix that binds a daemon to the share of the cores of this process.

    With --numprocesses, several daemons compute at the same time. On the same cores they would
    slow each other down by far more than their share, because their threads wait for each other.
    """
    cores = sorted(os.sched_getaffinity(0))
    num_processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if not 1 < num_processes <= len(cores):
        return []
    number = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    return ["taskset", "--cpu-list", ",".join(map(str, cores[number::num_processes]))]


def _free_port() -> int:
    """Return a free port below those that the system assigns to clients.

    From that range, a client that retries while nothing listens could connect to itself.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as sock:
            try:
                sock.bind((HOST, port))
            except OSError:
                continue
            return port
