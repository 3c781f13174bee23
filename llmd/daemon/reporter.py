"""Reports to systemd: that the daemon is ready, what it is doing, and that it is alive."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from llmd.daemon.systemd import Systemd, extend
from llmd.engine.engine import EngineStatus

log = logging.getLogger(__name__)

_STARTING_INTERVAL_S = 0.25
"""Seconds between two checks until the daemon is ready."""

_READY_INTERVAL_S = 2.0
"""Most seconds between two checks once the daemon is ready."""

_CLOSE_S = 12.0
"""Seconds to wait for the last check, in which the database and the HTTP server may hang."""

EXTEND_S = 30.0
"""Seconds of start time that each check requests while a model loads.

The engine limits how long a model may load.
"""


class Reporter:
    """Check the engine at intervals, in a thread, and report to systemd.

    ``READY=1`` is sent once the model is served, or once it is clear that it will not be: keys and
    models can be managed then, and the status says why the daemon cannot answer.
    """

    def __init__(
        self,
        systemd: Systemd,
        status: Callable[[], EngineStatus],
        is_alive: Callable[[], bool],
    ) -> None:
        """`is_alive` may block: the watchdog is notified only after it has returned."""
        self._systemd = systemd
        self._status = status
        self._is_alive = is_alive
        self._ended = threading.Event()
        self._is_ready = False
        self._reported = ""
        self._thread = threading.Thread(target=self._run, name="systemd", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, within_s: float) -> None:
        """Report that the daemon stops within `within_s`. Nothing is reported after that."""
        self._ended.set()
        self._systemd.notify("STOPPING=1", "STATUS=shutting down", extend(within_s))

    def close(self) -> None:
        """Wait for the last check. It uses the engine and the database, which are closed next."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while not self._ended.wait(self._pause_s()):
            try:
                self._check()
            except Exception:
                # Without a watchdog message systemd restarts the daemon, which is right then.
                log.exception("cannot report the state to systemd")

    def _pause_s(self) -> float:
        if not self._is_ready:
            return _STARTING_INTERVAL_S
        # Three messages within the time that systemd waits for one.
        watchdog_s = self._systemd.watchdog_s
        return min(_READY_INTERVAL_S, watchdog_s / 3) if watchdog_s else _READY_INTERVAL_S

    def _check(self) -> None:
        status = self._status()
        lines = []
        text = _describe(status)
        if text != self._reported:
            lines.append(f"STATUS={text}")
            self._reported = text
        if not self._is_ready:
            self._is_ready = status.state != "loading"
            lines.append("READY=1" if self._is_ready else extend(EXTEND_S))
        if self._systemd.watchdog_s and self._is_alive():
            lines.append("WATCHDOG=1")
        if lines and not self._ended.is_set():
            self._systemd.notify(*lines)


def _describe(status: EngineStatus) -> str:
    """Return the line that `systemctl status` shows."""
    if status.state == "loading":
        return f"loading {status.model}: {status.progress:.0%}"
    if status.state != "ready":
        return f"cannot answer: {status.reason}"
    info = status.info
    code = f" with CPU code {info.cpu_variant} on {info.num_threads} threads" if info else ""
    return f"serving {status.model}{code}"
