"""Keep a worker running for one model."""

from __future__ import annotations

import errno
import logging
import select
import threading
import time

from llmd import config
from llmd.engine.generation import Generation
from llmd.engine.health import (
    DEATHS_WITHIN_S,
    MAX_DEATHS,
    RecentDeaths,
    StallLimit,
    without_variant,
)
from llmd.engine.model import Model, State
from llmd.engine.process import WORKER_SETTINGS, WorkerProcess, WorkerSettings
from llmd.engine.protocol import (
    Answered,
    Beat,
    Cancel,
    Command,
    Done,
    Event,
    Forget,
    LoadFailed,
    Loading,
    ModelInfo,
    Progress,
    Query,
    Refused,
    Start,
    Submit,
    receive_events,
    send_command,
)
from llmd.engine.rate import Rate
from llmd.errors import EngineDied, EngineFailed, EngineLoading, LlmdError

log = logging.getLogger(__name__)

SPAWN_AGAIN_AFTER_S = 5.0
"""Pause before another attempt when the system has no process or descriptor left."""

_SHORTAGES = {errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class Supervisor:
    """Start a worker, pass requests to it, and restart it when it dies or hangs."""

    def __init__(
        self,
        model: Model,
        start: Start,
        settings: config.Engine,
        worker_settings: WorkerSettings = WORKER_SETTINGS,
    ) -> None:
        self.model = model
        self.state = State.LOADING
        self.reason = "the model is being loaded"
        self.progress = 0.0
        self.info: ModelInfo | None = None
        self.beat: Beat | None = None
        self.rate = Rate()
        self.num_restarts = 0
        self.is_models_fault = True
        self._start = start
        self._cpu_variant = ""
        self._settings = settings
        self._worker_settings = worker_settings
        self._changed = threading.Condition()
        self._generations: dict[int, Generation] = {}
        self._process: WorkerProcess | None = None
        self._send_lock = threading.Lock()
        self._deaths = RecentDeaths()
        self._last_event_at = time.monotonic()
        self._stall_limit = StallLimit(start.max_batch_tokens)
        # The thread that starts the worker must outlive it: the kernel kills the worker when that
        # thread ends (PR_SET_PDEATHSIG), not when the process ends.
        self._thread = threading.Thread(target=self._run, name=f"engine-{model.name}", daemon=True)
        self._thread.start()

    def wait_ready(self) -> None:
        """Wait until the model is ready. Raise `EngineFailed` if it cannot be loaded."""
        with self._changed:
            self._changed.wait_for(lambda: self.state is not State.LOADING)
            if self.state is not State.READY:
                raise EngineFailed(self.reason, retry_after_s=30)

    def check_ready(self) -> None:
        """Raise `EngineLoading` or `EngineFailed` unless a request could be submitted now."""
        if self.state is State.LOADING:
            raise EngineLoading(f"{self.reason} ({self.progress:.0%})", retry_after_s=2)
        if self.state is not State.READY:
            raise EngineFailed(self.reason, retry_after_s=30)

    def submit(self, request: Submit | Query) -> Generation:
        """Send a request or a query to the worker. Raise `EngineLoading` or `EngineFailed`."""
        with self._changed:
            self.check_ready()
            if not self._generations:
                self._last_event_at = time.monotonic()
            generation = Generation(request.id, self.model.name, self._cancel)
            self._generations[request.id] = generation
            process = self._process
        # Only to this process: if it dies now, the generation has ended and the next one must not
        # get the request.
        self._send(process, request)
        return generation

    def forget(self, owner: str, session: str | None) -> None:
        """Delete the KV states of an owner's session; of all its sessions if `session` is None."""
        if self.state is State.READY:
            self._send(self._process, Forget(owner=owner, session=session))

    def retire(self) -> None:
        """Stop as soon as the running requests have ended. Return at once."""
        threading.Thread(target=self._retire, name="engine-retire", daemon=True).start()

    def stop(self) -> None:
        """Stop the worker and this supervisor; requests end with `EngineDied`. Idempotent."""
        with self._changed:
            is_loading = self.state is State.LOADING
            self._set(State.STOPPED, "the engine was stopped")
            process = self._process
        if process is not None and is_loading:
            # A worker does not read its socket before the model is loaded.
            process.kill()
        elif process is not None:
            process.hang_up()
        self._thread.join()

    def _retire(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._generations)
            # Still under the lock: a request that comes now must go to the other model.
            self._set(State.STOPPED, "another model was chosen")
        self.stop()

    def _cancel(self, request_id: int) -> None:
        if request_id in self._generations:
            self._send(self._process, Cancel(request_id))

    def _send(self, process: WorkerProcess | None, command: Command) -> None:
        """Send a command. If the worker has just died, `_run` notices it and ends the requests."""
        if process is None:
            return
        try:
            with self._send_lock:
                send_command(process.sock, command)
        except OSError:
            log.debug("the worker has ended: a command was not sent")

    def _run(self) -> None:
        while self.state is State.LOADING:
            try:
                self.model.check()
                process = WorkerProcess(self._worker_settings)
            except LlmdError as error:
                # The file was changed or removed: native code must not read it.
                self._fail(error.message)
                return
            except OSError as error:
                if error.errno in _SHORTAGES:
                    self._wait_to_spawn(error)
                else:
                    self._bury(f"no process could be started: {error}")
                continue
            log.info("loading %s in process %d", self.model.name, process.pid)
            self._last_event_at = time.monotonic()
            self._send(process, self._start)
            # Other threads may send commands only after the first one, which is `Start`.
            self._process = process
            self._serve(process)
            how = process.close()
            self._process = None
            self._bury(how, counts=not (process.died_of_illegal_instruction and self._avoid()))

    @property
    def avoided_variants(self) -> list[str]:
        """The variants of the CPU code of which a worker has died on this processor."""
        return self._start.avoid_variants

    def _avoid(self) -> bool:
        """Make the next worker avoid the current CPU code. Return False if it cannot."""
        start = without_variant(self._start, self._cpu_variant)
        if start is None:
            return False
        log.error("CPU code %s cannot run here: going on without it", self._cpu_variant)
        self._start = start
        return True

    def _wait_to_spawn(self, error: OSError) -> None:
        """Wait until a process can be created again. Such a failure is not the model's fault."""
        reason = f"no worker could be started: {error.strerror}"
        if self.reason != reason:
            log.error("%s: retrying every %g s", reason, SPAWN_AGAIN_AFTER_S)
        with self._changed:
            self._set(self.state, reason)
            self._changed.wait_for(lambda: self.state is State.STOPPED, SPAWN_AGAIN_AFTER_S)

    def _serve(self, process: WorkerProcess) -> None:
        """Handle the events of a worker until it has ended."""
        poll = select.poll()
        poll.register(process.sock, select.POLLIN)
        while self.state is not State.STOPPED:
            if not poll.poll(1000 * self._worker_settings.poll_s):
                if self._is_stalled():
                    log.error("worker %d makes no progress: killing it", process.pid)
                    process.kill()
                continue
            events = receive_events(process.sock)
            if events is None:
                return
            self._last_event_at = time.monotonic()
            for event in events:
                self._handle(event)

    def _is_stalled(self) -> bool:
        silent_s = time.monotonic() - self._last_event_at
        if self.state is State.LOADING:
            return silent_s > self._settings.load_timeout_s
        if not self._generations:
            return False
        return silent_s > max(self._settings.stall_s, self._stall_limit.limit_s())

    def _handle(self, event: Event) -> None:
        if isinstance(event, Progress | Done | Refused | Answered):
            self._put(event)
        elif isinstance(event, Beat):
            self.beat = event
            self.rate.add(time.monotonic(), event.num_completion_tokens)
            if event.step_s:
                self._stall_limit.add(event.step_s, event.num_step_tokens)
        elif isinstance(event, Loading):
            self.progress = event.progress
            self._cpu_variant = event.cpu_variant
        elif isinstance(event, LoadFailed):
            self.is_models_fault = event.is_models_fault
            self._fail(event.message)
        else:
            self._on_ready(event)

    def _put(self, event: Progress | Done | Refused | Answered) -> None:
        generation = self._generations.get(event.id)
        if generation is not None:
            generation.put(event)
        if not isinstance(event, Progress):
            with self._changed:
                self._generations.pop(event.id, None)
                self._changed.notify_all()

    def _on_ready(self, info: ModelInfo) -> None:
        self.info = info
        with self._changed:
            self._set(State.READY, "")
        log.info(
            "%s is ready: %s, %.0fM parameters, %d sequences of %d tokens, CPU code %s, %d threads",
            self.model.name,
            info.architecture,
            info.num_parameters / 1e6,
            info.max_sequences,
            info.num_context_tokens,
            info.cpu_variant,
            info.num_threads,
        )

    def _bury(self, how: str, *, counts: bool = True) -> None:
        """End all requests after the death of a worker, and decide whether to start another one.

        Only a death that `counts` is added to the recent deaths.
        """
        with self._changed:
            generations = list(self._generations.values())
            self._generations.clear()
            if self.state in (State.LOADING, State.READY):
                if counts and self._deaths.add():
                    minutes = f"{DEATHS_WITHIN_S / 60:g} minutes"
                    message = f"the worker died {MAX_DEATHS} times within {minutes} ({how})"
                    self._set(State.FAILED, f"{message}: load the model again, or another")
                else:
                    self.num_restarts += 1
                    self._set(State.LOADING, "the worker died and is being started again")
                log.error("the worker of %s ended: %s", self.model.name, how)
            self.beat = None
            self._stall_limit = StallLimit(self._start.max_batch_tokens)
            self.progress = 0.0
            self._changed.notify_all()
        for generation in generations:
            generation.put(
                EngineDied("the worker process ended while it was working on this request")
            )
        if self.state is State.LOADING:
            time.sleep(self._worker_settings.restart_after_s)

    def _fail(self, reason: str) -> None:
        log.error("%s cannot be loaded: %s", self.model.name, reason)
        with self._changed:
            self._set(State.FAILED, reason)

    def _set(self, state: State, reason: str) -> None:
        """Change the state, unless it is `STOPPED`, which is final. The lock is held."""
        if self.state is not State.STOPPED:
            self.state = state
            self.reason = reason
        self._changed.notify_all()
