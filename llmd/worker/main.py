"""The worker process, which runs one model without database, keys or network.

The worker talks to the daemon over a socket pair. Its only argument is the descriptor of its own
end. It exits when the daemon closes the other end.
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
"""Added to the worker's OOM score, so that the kernel kills the worker and not the daemon."""


def main() -> int:
    """Run a worker on the descriptor in the first argument, and return its exit status."""
    # On a signal to the whole process group the daemon drains first, and needs the worker for it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE_ADJ))
    # By default a call of 0.1 ms may wait 5 ms for the GIL while the reader thread holds it.
    sys.setswitchinterval(0.0005)
    sock = socket.socket(fileno=int(sys.argv[1]))
    start = receive_command(sock)
    if not isinstance(start, Start):
        return 1
    try:
        # Check before the next import: it loads native code that crashes an older processor.
        check_processor()
        from llmd.worker.loop import Worker

        worker = Worker(sock, set_up_threads(start))
    except LlmdError as error:
        send_events(sock, [LoadFailed(error.message, isinstance(error, ModelInvalid))])
        return 1
    except OSError:
        return 1
    # What is loaded now stays until exit, so the garbage collector need not scan it again.
    gc.freeze()
    try:
        worker.run()
    except OSError:
        # The daemon exited during a step.
        return 1
    return 0
