"""The daemon behind its WSGI application with a fake engine, and helpers for waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from falcon import testing

from llmd import config
from llmd.api.app import create_access, create_app
from llmd.chat.model_selection import ModelSelector
from llmd.config import Config
from llmd.daemon.composition import build
from llmd.errors import StoreFull
from llmd.store import migrate
from llmd.store.db import Database, Tx
from llmd.store.keys import Key, Role
from llmd.store.profiles import Profile, Profiles
from tests.support import gguf_file
from tests.support.fake_engine import FakeEngine

_WAIT_S = 20.0
"""Seconds after which a test that waits fails."""


def until(condition: Callable[[], object]) -> None:
    """Wait until `condition` is true; fail if it never is."""
    deadline = time.monotonic() + _WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "the condition never became true"
        time.sleep(0.002)


class Background:
    """Call a function in a thread of its own, and keep its result or error."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self.result: Any = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._call()
        except BaseException as error:
            self.error = error

    def wait(self) -> Any:
        """Wait for the end of the call. Return its result or raise its error."""
        self._thread.join(_WAIT_S)
        assert not self._thread.is_alive(), "the call never ended"
        if self.error is not None:
            raise self.error
        return self.result

    @property
    def is_running(self) -> bool:
        """Whether the call has not ended."""
        return self._thread.is_alive()


def empty_database(file: Path) -> None:
    """Create a database of the present schema, with the profile `default` and no key."""
    url = f"sqlite:///{file}"
    migrate.upgrade(url, now=0)
    db = Database(url)
    Profiles(db).put("default", Profile(), actor="cli", now=0)
    db.close()


class FillableDatabase(Database):
    """A database that fails to write as on a full disk while `is_full` is set."""

    is_full = False

    @contextmanager
    def write(self) -> Iterator[Tx]:
        if self.is_full:
            raise StoreFull("no space is left for the database: free some")
        with super().write() as tx:
            yield tx


class Service:
    """Every part of the daemon, with a fake engine and the keys of an admin and of two users.

    `admin`, `user` and `other` are the texts of the keys, `admin_key` and so on their rows.
    """

    def __init__(
        self,
        folder: Path,
        blank_database: bytes,
        *,
        server: config.Server | None = None,
        log_prompts: bool = False,
    ) -> None:
        file = folder / "llmd.db"
        file.write_bytes(blank_database)
        self.models = folder / "models"
        self.models.mkdir(exist_ok=True)
        self.add_model("tiny.gguf")
        self._config = Config(
            server=server or config.Server(max_streams=2, max_queue=2),
            models=config.Models(dir=str(self.models), packaged_dir=str(folder / "packaged")),
            auth=config.Auth(argon2="cheapest"),
            log=config.Log(prompts=log_prompts),
        )
        self.db = FillableDatabase(f"sqlite:///{file}")
        self.engine = FakeEngine()
        self.services = build(self._config, self.db, self.engine)
        self.keys, self.profiles = self.services.keys, self.services.profiles
        self.sessions, self.settings = self.services.sessions, self.services.settings
        self.admission = self.services.admission
        self.answers = self.services.answers
        self.completions = self.services.completions
        self.responses = self.services.responses
        self.selector = self.services.selector
        self.issuer = self.services.issuer
        self.access = create_access(self.services, self._config.server)
        self.app = create_app(self.services, self.access, self._config.server)
        self.client = testing.TestClient(self.app)
        self.admin_key, self.admin = self.issue("boss", "admin")
        self.user_key, self.user = self.issue("ann", "user")
        self.other_key, self.other = self.issue("bob", "user")

    def close(self) -> None:
        """Close the database."""
        self.db.close()

    def make_selector(self, default_model: str = "") -> ModelSelector:
        """Return a selector with this `[models] default`."""
        models = msgspec.structs.replace(self._config.models, default=default_model)
        settings = msgspec.structs.replace(self._config, models=models)
        return build(settings, self.db, self.engine).selector

    def add_model(self, name: str, raw: bytes | None = None) -> None:
        """Write a model file into the folder, by default a valid one."""
        (self.models / name).write_bytes(gguf_file.build() if raw is None else raw)

    def issue(self, name: str, role: Role, *, expires_in_s: int | None = None) -> tuple[Key, str]:
        """Issue a key. Return its row and its text."""
        now = int(time.time()) - (10 if expires_in_s else 0)
        return self.issuer.issue(name, role, expires_in_s=expires_in_s, actor="cli", now=now)

    def put_profile(self, name: str, **fields: Any) -> None:
        """Store a profile with these fields."""
        self.profiles.put(name, Profile(**fields), actor="cli", now=0)

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str | None = None,
        headers: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> testing.Result:
        """Send a request with the user's key, with another `key`, or with none if `key` is ""."""
        key = self.user if key is None else key
        sent = ({"Authorization": f"Bearer {key}"} if key else {}) | (headers or {})
        raw = body if isinstance(body, bytes) or body is None else msgspec.json.encode(body)
        result: testing.Result = self.client.simulate_request(
            method, path, body=raw, headers=sent, **kwargs
        )
        return result

    def code(self, result: testing.Result) -> tuple[int, str]:
        """Check the form of an error. Return its status and its code."""
        error = result.json["error"]
        assert set(error) >= {"message", "type", "param", "code"}
        assert result.json["message"] == error["message"]
        assert result.headers["x-request-id"]
        return result.status_code, error["code"]
