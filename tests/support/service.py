"""The whole daemon behind its WSGI application, but for the engine, which is a fake."""

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
from llmd.api.services import Services
from llmd.auth.gate import Gate
from llmd.auth.secret import Hasher
from llmd.chat.admission import Admission
from llmd.chat.answers import Answers
from llmd.chat.completions import Completions
from llmd.chat.embeddings import Embeddings
from llmd.chat.key_issue import KeyIssuer
from llmd.chat.model_names import ModelNames
from llmd.chat.model_selection import ModelSelector
from llmd.chat.queries import Queries
from llmd.chat.responses import Responses
from llmd.chat.retries import Retries
from llmd.chat.run import Runs
from llmd.errors import StoreFull
from llmd.models.library import Library
from llmd.store import migrate
from llmd.store.db import Database, Tx
from llmd.store.keys import Key, Keys, Role
from llmd.store.profiles import Profile, Profiles
from llmd.store.responses import Responses as ResponseStore
from llmd.store.sessions import Sessions
from llmd.store.settings import Settings
from tests.support import gguf_file
from tests.support.fake_engine import FakeEngine

_WAIT_S = 20.0


def until(condition: Callable[[], object]) -> None:
    """Wait until something is so; fail when it never comes to be."""
    deadline = time.monotonic() + _WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it never came to be so"
        time.sleep(0.002)


class Background:
    """Call something in a thread of its own, and keep what it returns or raises."""

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
        """Return the result once it is there, or raise the error."""
        self._thread.join(_WAIT_S)
        assert not self._thread.is_alive(), "the call never came back"
        if self.error is not None:
            raise self.error
        return self.result

    @property
    def is_running(self) -> bool:
        """Tell whether the call has not come back."""
        return self._thread.is_alive()


def empty_database(file: Path) -> None:
    """Make a database of the present schema with the profile `default`."""
    url = f"sqlite:///{file}"
    migrate.upgrade(url, now=0)
    db = Database(url)
    Profiles(db).put("default", Profile(), actor="cli", now=0)
    db.close()


class FullableDatabase(Database):
    """A database whose disk can be full."""

    is_full = False

    @contextmanager
    def write(self) -> Iterator[Tx]:
        if self.is_full:
            raise StoreFull("no space is left for the database: free some")
        with super().write() as tx:
            yield tx


class Service:
    """Every part of the daemon, with an admin's key, a user's, and another user's."""

    def __init__(
        self,
        folder: Path,
        blank: bytes,
        *,
        server: config.Server | None = None,
        log_prompts: bool = False,
    ) -> None:
        server = server or config.Server(max_streams=2, max_queue=2)
        file = folder / "llmd.db"
        file.write_bytes(blank)
        self.models = folder / "models"
        self.models.mkdir(exist_ok=True)
        self.add_model("tiny.gguf")
        self.db = FullableDatabase(f"sqlite:///{file}")
        self.engine = FakeEngine()
        self.keys, self.profiles = Keys(self.db), Profiles(self.db)
        self.sessions, self.settings = Sessions(self.db), Settings(self.db)
        self.admission = Admission(server.max_streams, server.max_queue)
        self.library = Library(self.models)
        hasher = Hasher("cheapest")
        self.issuer = KeyIssuer(self.keys, hasher)
        self.model_names = ModelNames(self.engine, self.profiles, self.settings, self.library)
        self.runs = Runs(self.engine, self.admission)
        self.answers = Answers(self.runs, self.model_names, self.sessions, log_prompts=log_prompts)
        self.completions = Completions(self.runs, self.model_names, log_prompts=log_prompts)
        self.responses = Responses(
            self.runs,
            self.model_names,
            ResponseStore(self.db),
            self.engine,
            log_prompts=log_prompts,
        )
        self.selector = self.make_selector()
        self.services = Services(
            gate=Gate(self.keys, hasher, settings=config.Auth(argon2="cheapest")),
            answers=self.answers,
            completions=self.completions,
            responses=self.responses,
            embeddings=Embeddings(self.engine, None, self.admission),
            queries=Queries(self.engine),
            retries=Retries(),
            models=self.model_names,
            selector=self.selector,
            issuer=self.issuer,
            engine=self.engine,
            admission=self.admission,
            library=self.library,
            keys=self.keys,
            profiles=self.profiles,
            sessions=self.sessions,
            settings=self.settings,
        )
        self.access = create_access(self.services, server)
        self.app = create_app(self.services, self.access, server)
        self.client = testing.TestClient(self.app)
        self.admin_key, self.admin = self.issue("boss", "admin")
        self.user_key, self.user = self.issue("ann", "user")
        self.other_key, self.other = self.issue("bob", "user")

    def close(self) -> None:
        """Close the database."""
        self.db.close()

    def make_selector(self, default_model: str = "") -> ModelSelector:
        """Return a selector with this `[models] default`."""
        return ModelSelector(
            self.engine, self.library, self.profiles, self.settings, default_model=default_model
        )

    def add_model(self, name: str, raw: bytes | None = None) -> None:
        """Put a model file into the folder, a right one unless told otherwise."""
        (self.models / name).write_bytes(gguf_file.build() if raw is None else raw)

    def issue(self, name: str, role: Role, *, expires_in_s: int | None = None) -> tuple[Key, str]:
        """Make a key."""
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
        """Send a request with the user's key, unless another or none ("") is given."""
        key = self.user if key is None else key
        sent = ({"Authorization": f"Bearer {key}"} if key else {}) | (headers or {})
        raw = body if isinstance(body, bytes) or body is None else msgspec.json.encode(body)
        result: testing.Result = self.client.simulate_request(
            method, path, body=raw, headers=sent, **kwargs
        )
        return result

    def code(self, result: testing.Result) -> tuple[int, str]:
        """Return the status and the code of an error, whose form is checked."""
        error = result.json["error"]
        assert set(error) >= {"message", "type", "param", "code"}
        assert result.json["message"] == error["message"]
        assert result.headers["x-request-id"]
        return result.status_code, error["code"]
