"""``/livez``, ``/health`` and ``/status``: is it alive, could it answer now, what is it doing."""

from __future__ import annotations

import time

import falcon

from llmd import __version__
from llmd.api import errors
from llmd.api.reply import send
from llmd.chat.admission import Admission
from llmd.engine.engine import Engine
from llmd.errors import Draining, EngineLoading, LlmdError, Unavailable
from llmd.store.sessions import Sessions
from llmd.store.settings import Settings


class LivezResource:
    """Is the daemon alive: then it answers."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer."""
        send(resp, {"status": "alive"})


class HealthResource:
    """Could a token be generated now."""

    def __init__(self, engine: Engine, admission: Admission) -> None:
        self._engine = engine
        self._admission = admission

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200, or 503 with the reason while it could not."""
        try:
            if self._admission.draining:
                raise Draining("the server is going down", retry_after_s=10)
            self._engine.check_ready()
        except Unavailable as error:
            resp.status = falcon.HTTP_503
            resp.set_header("Retry-After", str(error.retry_after_s))
            head = {"status": _state(error), "reason": error.message}
            send(resp, head | errors.body_of(error))
        else:
            send(resp, {"status": "ok", "model": self._engine.model})


def _state(error: Unavailable) -> str:
    if isinstance(error, Draining):
        return "draining"
    return "loading" if isinstance(error, EngineLoading) else "failed"


class StatusResource:
    """What the daemon is doing."""

    def __init__(
        self, engine: Engine, admission: Admission, sessions: Sessions, settings: Settings
    ) -> None:
        self._engine = engine
        self._admission = admission
        self._sessions = sessions
        self._settings = settings
        self._began = time.monotonic()

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the state of the engine and the counts of this moment."""
        status = self._engine.status()
        info = status.info
        admission = self._admission
        try:
            num_sessions = self._sessions.count()
            profile = self._settings.selection().profile
        except LlmdError:
            # What the engine does is worth telling without the store too.
            num_sessions, profile = None, None
        send(
            resp,
            {
                "version": __version__,
                "uptime_s": int(time.monotonic() - self._began),
                "state": "draining" if admission.draining else status.state,
                "reason": status.reason,
                "progress": round(status.progress, 3),
                "model": status.model,
                "profile": profile,
                "context_tokens": info.num_context_tokens if info else None,
                "cpu_variant": info.cpu_variant if info else None,
                "threads": info.num_threads if info else None,
                "sequences": {
                    "running": status.num_running,
                    "waiting": status.num_waiting,
                    "max": info.max_sequences if info else None,
                },
                "streams": {
                    "active": admission.num_active,
                    "queued": admission.num_queued,
                    "max": admission.max_streams,
                    "max_queue": admission.max_queue,
                },
                "tokens": {
                    "prompt": status.num_prompt_tokens,
                    "cached": status.num_cached_tokens,
                    "completion": status.num_completion_tokens,
                },
                "tokens_per_s": round(status.tokens_per_s, 1),
                "restarts": status.num_restarts,
                "sessions": num_sessions,
            },
        )
