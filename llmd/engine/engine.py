"""The engine: the model that serves requests, and the switch to another one."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from llmd import config
from llmd.engine.generation import Generation
from llmd.engine.model import Model, State
from llmd.engine.process import WORKER_SETTINGS, WorkerSettings
from llmd.engine.protocol import Constraint, ModelInfo, Prompt, Query, Sampling, Start, Submit
from llmd.engine.supervisor import Supervisor
from llmd.errors import Conflict, EngineFailed, ModelInvalid

_request_ids = itertools.count(1)

LONGEST_EMBEDDED = 8192
"""Tokens in a step of an embedding model: most of them need a whole text in one step."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a generation.

    A KV state is reused only within the same `owner`; `session` names the conversation.
    """

    owner: str
    session: str
    prompt: Prompt
    num_turns: int
    sampling: Sampling
    max_tokens: int
    max_context_tokens: int | None
    stop: list[str]
    constraint: Constraint | None = None
    num_logprobs: int | None = None
    ignores_end: bool = False


class EngineStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the engine. Counts of tokens are totals since the start of the worker."""

    state: str
    reason: str
    model: str | None
    info: ModelInfo | None
    progress: float
    num_restarts: int
    num_running: int
    num_waiting: int
    num_prompt_tokens: int
    num_cached_tokens: int
    num_completion_tokens: int
    num_drafted_tokens: int = 0
    num_accepted_tokens: int = 0
    tokens_per_s: float


class Engine:
    """Pass requests to the current model, and switch to another one without ending a request."""

    def __init__(
        self,
        settings: config.Engine,
        cache: config.Cache,
        worker_settings: WorkerSettings = WORKER_SETTINGS,
        *,
        embeds_only: bool = False,
    ) -> None:
        """Create an engine without a model. With `embeds_only`, its models make only embeddings."""
        self._settings = settings
        self._cache = cache
        self._worker_settings = worker_settings
        self._embeds_only = embeds_only
        self._current: Supervisor | None = None
        self._loading: Supervisor | None = None
        self._retiring: list[Supervisor] = []
        self._why_none = "no model was chosen: put a GGUF file into the models folder"
        self._lock = threading.Lock()
        self._closed = False

    @property
    def model(self) -> str | None:
        """The name of the current model, which may still be loading."""
        current = self._current
        return current.model.name if current else None

    def start(self, model: Model) -> None:
        """Begin to load the first model and return at once. Do nothing if there is a model."""
        with self._lock:
            if not self._closed and self._current is None and self._loading is None:
                self._current = self._supervise(model)

    def start_without(self, reason: str) -> None:
        """Record the reason why no model is loaded at the start."""
        self._why_none = reason

    def switch(self, model: Model, commit: Callable[[], None]) -> None:
        """Load a model and pass all new requests to it; running requests finish on the old model.

        Return when the model is ready. Call `commit` as soon as it is, before any request goes to
        it, so that the choice can be stored. Raise the errors of `commit`, `ModelInvalid` if the
        model cannot be loaded, `EngineFailed` if this machine cannot load it, and `Conflict`
        during another switch. After an error the old model still serves.
        """
        with self._lock:
            if self._loading is not None:
                name = self._loading.model.name
                raise Conflict(f"{name} is being loaded: wait until it is ready")
            if self._closed:
                raise EngineFailed("the daemon is going down")
            old = self._current
            if old is None or old.model != model or old.state is State.FAILED:
                new = self._supervise(model)
            else:
                new = old
            self._loading = new
        try:
            new.wait_ready()
            commit()
            with self._lock:
                self._current = new
        except EngineFailed as error:
            message = f"{model.name} could not be loaded: {error.message}"
            if new.is_models_fault:
                raise ModelInvalid(message, param="model") from None
            raise EngineFailed(message, retry_after_s=error.retry_after_s) from None
        finally:
            if self._current is not new:
                new.stop()
            with self._lock:
                self._loading = None
        if old is not None and old is not new:
            self._retire(old)

    def check_ready(self) -> None:
        """Raise `EngineLoading` or `EngineFailed` unless a request could be submitted now."""
        self._supervisor().check_ready()

    def submit(self, request: Request) -> Generation:
        """Begin to generate. Raise `EngineLoading` or `EngineFailed`."""
        return self._send(Submit(id=next(_request_ids), **msgspec.structs.asdict(request)))

    def ask(self, query: Query) -> Generation:
        """Begin to answer a query; its `id` is replaced. Raise the errors of `submit`."""
        return self._send(msgspec.structs.replace(query, id=next(_request_ids)))

    def _send(self, command: Submit | Query) -> Generation:
        while True:
            supervisor = self._supervisor()
            try:
                return supervisor.submit(command)
            except EngineFailed:
                # The supervisor may have retired just now, for another model: ask that one.
                if supervisor is self._current:
                    raise

    def forget(self, owner: str, session: str | None = None) -> None:
        """Delete the KV states of an owner's session; of all its sessions if `session` is None."""
        current = self._current
        if current is not None:
            current.forget(owner, session)

    def status(self) -> EngineStatus:
        """Return the engine's state and counts."""
        current = self._current
        beat = current.beat if current else None
        return EngineStatus(
            state=current.state.value if current else State.FAILED.value,
            reason=current.reason if current else self._why_none,
            model=current.model.name if current else None,
            info=current.info if current else None,
            progress=current.progress if current else 0.0,
            num_restarts=current.num_restarts if current else 0,
            num_running=beat.num_running if beat else 0,
            num_waiting=beat.num_waiting if beat else 0,
            num_prompt_tokens=beat.num_prompt_tokens if beat else 0,
            num_cached_tokens=beat.num_cached_tokens if beat else 0,
            num_completion_tokens=beat.num_completion_tokens if beat else 0,
            num_drafted_tokens=beat.num_drafted_tokens if beat else 0,
            num_accepted_tokens=beat.num_accepted_tokens if beat else 0,
            tokens_per_s=current.rate.per_second(time.monotonic()) if current else 0.0,
        )

    def close(self) -> None:
        """Stop every worker."""
        with self._lock:
            self._closed = True
            supervisors = [self._current, self._loading, *self._retiring]
        for supervisor in supervisors:
            if supervisor is not None:
                supervisor.stop()

    def _retire(self, old: Supervisor) -> None:
        """Stop a model after its last request has ended, or when the engine is closed."""
        with self._lock:
            self._retiring = [
                supervisor for supervisor in self._retiring if supervisor.state is not State.STOPPED
            ]
            self._retiring.append(old)
        old.retire()

    def _supervisor(self) -> Supervisor:
        current = self._current
        if current is None:
            raise EngineFailed(self._why_none, retry_after_s=30)
        return current

    def _supervise(self, model: Model) -> Supervisor:
        settings = self._settings
        start = Start(
            model_path=model.path,
            library_dir=settings.library_dir or str(Path(sys.prefix, "engine")),
            num_context_tokens=settings.context,
            max_sequences=settings.parallel,
            max_batch_tokens=(
                LONGEST_EMBEDDED
                if self._embeds_only
                # A step must have room for one token of every sequence that generates.
                else max(settings.batch, settings.parallel)
            ),
            num_threads=settings.threads,
            num_threads_batch=settings.threads_batch,
            kv_type=settings.kv_type,
            kv_unified=settings.kv_unified,
            flash_attention=settings.flash_attention,
            max_state_bytes=self._cache.ram_bytes,
            cache_dir=self._cache.dir,
            max_disk_bytes=self._cache.disk_bytes,
            max_draft_tokens=settings.draft,
            avoid_variants=self._current.avoided_variants if self._current else [],
            embeds_only=self._embeds_only,
        )
        return Supervisor(model, start, settings, self._worker_settings)
