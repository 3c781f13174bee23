"""Go down in good order: no new work, time for what runs, then the end."""

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
"""For answers that were cut off: to tell their clients and keep what there is of them."""

END_WITHIN_S = 15.0
"""For what comes after the answers: the server's threads, the worker, the database."""


class Shutdown:
    """Drain on the first SIGTERM or SIGINT, end at once on the second."""

    def __init__(
        self,
        admission: Admission,
        drain_s: Callable[[], float],
        *,
        on_begin: Callable[[float], None] = lambda _within_s: None,
        end: Callable[[int], NoReturn] = os._exit,
    ) -> None:
        """`on_begin` is told how many seconds the whole may take."""
        self._admission = admission
        self._drain_s = drain_s
        self._on_begin = on_begin
        self._end = end
        self._begun = False

    def on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Handle SIGTERM or SIGINT, in the main thread."""
        if self._begun:
            log.warning("a second %s: ending at once", signal.Signals(number).name)
            # waitress would catch SystemExit and wait for its threads; what is stored is safe, and
            # the kernel ends the worker.
            self._end(1)
        self._begun = True
        threading.Thread(target=self._drain, name="drain", daemon=True).start()

    def on_drained(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """End the main loop. waitress has no other way out than this exception."""
        sys.exit(0)

    def _drain(self) -> None:
        limit_s = self._drain_s()
        self._on_begin(limit_s + CANCEL_WITHIN_S + END_WITHIN_S)
        self._admission.drain()
        num_active = self._admission.num_active
        log.info("going down: %d answers are being made, %g s for them", num_active, limit_s)
        if not self._admission.wait_idle(limit_s):
            log.warning("%d answers are cut off", self._admission.num_active)
            self._admission.expire()
            self._admission.wait_idle(CANCEL_WITHIN_S)
        os.kill(os.getpid(), signal.SIGUSR2)
