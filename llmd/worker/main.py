"""The worker process: one model, no database, no keys, no network.

It talks to the daemon over a socket pair whose descriptor is its argument, and ends with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import signal
import socket
import sys
from pathlib import Path

from llmd.engine.protocol import LoadFailed, Start, receive_command, send_events
from llmd.errors import LlmdError, ModelInvalid
from llmd.worker.cpu.team import set_up_threads
from llmd.worker.cpu.variants import check_processor

_PR_SET_PDEATHSIG = 1
_OOM_SCORE_ADJ = 500
"""When memory runs out the kernel shall take the worker, never the daemon with its store."""


def main() -> int:
    """Run a worker on the descriptor named by the first argument."""
    # A signal to the whole process group is the daemon's to handle: it drains first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE_ADJ))
    # A short call must not wait 5 ms for the GIL because the reader thread holds it.
    sys.setswitchinterval(0.0005)
    sock = socket.socket(fileno=int(sys.argv[1]))
    start = receive_command(sock)
    if not isinstance(start, Start):
        return 1
    try:
        # First of all: what is imported next has native code that an older one cannot run.
        check_processor()
        from llmd.worker.loop import Worker

        worker = Worker(sock, set_up_threads(start))
    except LlmdError as error:
        send_events(sock, [LoadFailed(error.message, isinstance(error, ModelInvalid))])
        return 1
    except OSError:
        return 1
    # All that is loaded stays to the end: to look through it again and again would be for nothing.
    gc.freeze()
    try:
        worker.run()
    except OSError:
        # The daemon is gone in the middle of a step.
        return 1
    return 0
