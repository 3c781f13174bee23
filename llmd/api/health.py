"""``/livez``, ``/health`` and ``/status``: whether the daemon is alive, is ready, and its state."""

from __future__ import annotations

import time
from typing import Annotated, Literal

import falcon
from msgspec import Meta, Struct

from llmd import __version__
from llmd.api import errors
from llmd.api.access import Access
from llmd.api.reply import send
from llmd.api.route import Operation
from llmd.chat.admission import Admission
from llmd.chat.embeddings import Embeddings
from llmd.engine.engine import Engine
from llmd.errors import Draining, EngineFailed, EngineLoading, LlmdError, Unavailable
from llmd.store.sessions import Sessions
from llmd.store.settings import Settings


class Alive(Struct, frozen=True, kw_only=True):
    """The daemon is alive."""

    status: Literal["alive"] = "alive"


class Healthy(Struct, frozen=True, kw_only=True):
    """The daemon could generate a token now, with this model, and make embeddings."""

    status: Literal["ok"] = "ok"
    model: str | None


class SequenceCounts(Struct, frozen=True, kw_only=True):
    """The sequences that the worker computes, and those that wait."""

    running: int
    waiting: int
    max: int | None


class StreamCounts(Struct, frozen=True, kw_only=True):
    """The requests that are being answered, and those that wait in the queue."""

    active: int
    queued: int
    max: int
    max_queue: int


class TokenCounts(Struct, frozen=True, kw_only=True):
    """The tokens since the worker's start."""

    prompt: int
    cached: int
    completion: int
    drafted: int
    accepted: int


class Status(Struct, frozen=True, kw_only=True):
    """The state of the daemon. A value that is not known is null."""

    version: str
    uptime_s: int
    state: Annotated[str, Meta(description="`ready`, `loading`, `failed`, `stopped`, `draining`.")]
    reason: str
    progress: Annotated[float, Meta(description="The part of the model that is loaded, 0 to 1.")]
    model: str | None
    profile: str | None
    context_tokens: int | None
    cpu_variant: str | None
    threads: int | None
    sequences: SequenceCounts
    streams: StreamCounts
    tokens: TokenCounts
    tokens_per_s: float
    restarts: int
    sessions: int | None


LIVEZ = {
    "GET": Operation(summary="Report that the daemon is alive", access=Access.OPEN, reply=Alive),
}
HEALTH = {
    "GET": Operation(
        summary="Report whether a token could be generated now",
        description=(
            "If `[models] embedding` is set, that model must be able to serve too. "
            "The body of a 503 has, beside the error, a `status` (`loading`, `failed`, `draining`) "
            "and the `reason`."
        ),
        access=Access.OPEN,
        reply=Healthy,
        errors=(Draining, EngineLoading, EngineFailed),
    ),
}
STATUS = {
    "GET": Operation(summary="Report the state of the daemon", access=Access.USER, reply=Status),
}


class LivezResource:
    """The check whether the daemon is alive. It answers in every state of the engine."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200."""
        send(resp, Alive())


class HealthResource:
    """The check whether the daemon could generate a token, and make embeddings, now."""

    def __init__(self, engine: Engine, embeddings: Embeddings, admission: Admission) -> None:
        self._engine = engine
        self._embeddings = embeddings
        self._admission = admission

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200, or 503 with the reason why not."""
        try:
            if self._admission.draining:
                raise Draining("the server is going down", retry_after_s=10)
            self._engine.check_ready()
            self._embeddings.check_ready()
        except Unavailable as error:
            resp.status = falcon.HTTP_503
            resp.set_header("Retry-After", str(error.retry_after_s))
            head = {"status": _state(error), "reason": error.message}
            send(resp, head | errors.body_of(error))
        else:
            send(resp, Healthy(model=self._engine.model))


def _state(error: Unavailable) -> str:
    """Return the `status` of an unhealthy daemon."""
    if isinstance(error, Draining):
        return "draining"
    return "loading" if isinstance(error, EngineLoading) else "failed"


class StatusResource:
    """The state of the daemon."""

    def __init__(
        self, engine: Engine, admission: Admission, sessions: Sessions, settings: Settings
    ) -> None:
        self._engine = engine
        self._admission = admission
        self._sessions = sessions
        self._settings = settings
        self._began = time.monotonic()

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the state of the engine and the current counts."""
        status = self._engine.status()
        info = status.info
        admission = self._admission
        try:
            num_sessions = self._sessions.count()
            profile = self._settings.selection().profile
        except LlmdError:
            # The state of the engine is useful even while the store fails.
            num_sessions, profile = None, None
        view = Status(
            version=__version__,
            uptime_s=int(time.monotonic() - self._began),
            state="draining" if admission.draining else status.state,
            reason=status.reason,
            progress=round(status.progress, 3),
            model=status.model,
            profile=profile,
            context_tokens=info.num_context_tokens if info else None,
            cpu_variant=info.cpu_variant if info else None,
            threads=info.num_threads if info else None,
            sequences=SequenceCounts(
                running=status.num_running,
                waiting=status.num_waiting,
                max=info.max_sequences if info else None,
            ),
            streams=StreamCounts(
                active=admission.num_active,
                queued=admission.num_queued,
                max=admission.max_streams,
                max_queue=admission.max_queue,
            ),
            tokens=TokenCounts(
                prompt=status.num_prompt_tokens,
                cached=status.num_cached_tokens,
                completion=status.num_completion_tokens,
                drafted=status.num_drafted_tokens,
                accepted=status.num_accepted_tokens,
            ),
            tokens_per_s=round(status.tokens_per_s, 1),
            restarts=status.num_restarts,
            sessions=num_sessions,
        )
        send(resp, view)
