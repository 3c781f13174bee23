"""Tell systemd when the daemon can answer, what it does, and that it lives."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from llmd.daemon.systemd import Systemd, extend
from llmd.engine.engine import EngineStatus

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.25
_LOOK_LATER_S = 2.0
_CLOSE_S = 12.0
EXTEND_S = 30.0
"""How much time each look at a model that loads asks for. The engine bounds how often that is."""


class Reporter:
    """Look at the engine now and then, in a thread, and pass on what systemd should know.

    ``READY=1`` goes out once the model serves, or once it is clear that it will not: keys and
    models can be looked after then, and the status says why there is no answer.
    """

    def __init__(
        self,
        systemd: Systemd,
        status: Callable[[], EngineStatus],
        is_alive: Callable[[], bool],
    ) -> None:
        """`is_alive` may wait as long as it must: no proof of life is sent before it returns."""
        self._systemd = systemd
        self._status = status
        self._is_alive = is_alive
        self._ended = threading.Event()
        self._is_ready = False
        self._told = ""
        self._thread = threading.Thread(target=self._run, name="systemd", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self, within_s: float) -> None:
        """Say that the daemon goes down, which may take so long. What comes later is not told."""
        self._ended.set()
        self._systemd.tell("STOPPING=1", "STATUS=going down", extend(within_s))

    def close(self) -> None:
        """Wait for the last look, which uses what is closed next."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while not self._ended.wait(self._pause_s()):
            try:
                self._look()
            except Exception:
                # Without proof of life systemd starts the daemon again, which is right then.
                log.exception("the state could not be told to systemd")

    def _pause_s(self) -> float:
        if not self._is_ready:
            return _LOOK_EVERY_S
        # Three chances within the time that systemd waits.
        watchdog_s = self._systemd.watchdog_s
        return min(_LOOK_LATER_S, watchdog_s / 3) if watchdog_s else _LOOK_LATER_S

    def _look(self) -> None:
        status = self._status()
        lines = []
        text = _words(status)
        if text != self._told:
            lines.append(f"STATUS={text}")
            self._told = text
        if not self._is_ready:
            self._is_ready = status.state != "loading"
            lines.append("READY=1" if self._is_ready else extend(EXTEND_S))
        if self._systemd.watchdog_s and self._is_alive():
            lines.append("WATCHDOG=1")
        if lines and not self._ended.is_set():
            self._systemd.tell(*lines)


def _words(status: EngineStatus) -> str:
    """Say in a line what `systemctl status` should show."""
    if status.state == "loading":
        return f"loading {status.model}: {status.progress:.0%}"
    if status.state != "ready":
        return f"cannot answer: {status.reason}"
    info = status.info
    code = f" with CPU code {info.cpu_variant} on {info.num_threads} threads" if info else ""
    return f"serving {status.model}{code}"
