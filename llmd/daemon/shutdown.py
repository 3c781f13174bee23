"""Orderly shutdown: accept no new requests, let running answers finish, then end."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from llmd.chat.admission import Admission

log = logging.getLogger(__name__)

CANCEL_WITHIN_S = 5.0
"""Seconds for answers that were cut off to inform their clients and store the partial text."""

END_WITHIN_S = 15.0
"""Seconds to end the server's threads, the worker and the database after the last answer."""


class Shutdown:
    """Drain at the first SIGTERM or SIGINT, exit at once at the second."""

    def __init__(
        self,
        admission: Admission,
        drain_s: Callable[[], float],
        *,
        on_begin: Callable[[float], None] = lambda _within_s: None,
        end: Callable[[int], NoReturn] = os._exit,
    ) -> None:
        """`on_begin` is called with the number of seconds that the shutdown may take."""
        self._admission = admission
        self._drain_s = drain_s
        self._on_begin = on_begin
        self._end = end
        self._begun = False

    def on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Handle SIGTERM or SIGINT, in the main thread."""
        if self._begun:
            log.warning("second signal, %s: exiting at once", signal.Signals(number).name)
            # waitress would catch SystemExit and wait for its threads. Stored data is safe, and the
            # kernel ends the worker.
            self._end(1)
        self._begun = True
        threading.Thread(target=self._drain, name="drain", daemon=True).start()

    def on_drained(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """End the main loop, which waitress leaves only by this exception."""
        sys.exit(0)

    def _drain(self) -> None:
        limit_s = self._drain_s()
        self._on_begin(limit_s + CANCEL_WITHIN_S + END_WITHIN_S)
        self._admission.drain()
        num_active = self._admission.num_active
        log.info("shutting down: waiting up to %g s for %d running answers", limit_s, num_active)
        if not self._admission.wait_idle(limit_s):
            log.warning("%d answers are cut off", self._admission.num_active)
            self._admission.expire()
            self._admission.wait_idle(CANCEL_WITHIN_S)
        os.kill(os.getpid(), signal.SIGUSR2)
