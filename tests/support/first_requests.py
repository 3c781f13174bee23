"""Start the daemon's application again and again, and send its first requests all at once.

It is run as a script: ``python first_requests.py FOLDER STARTS``. Each start is a forked child of
a process that has imported every module and served nothing, so a crash ends only that child.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from tests.support.service import Service, empty_database

NUM_REQUESTS = 32
"""The number of first requests that are sent at once."""

SWITCH_INTERVAL_S = 1e-5
"""Interval at which Python changes threads: short, so that a race shows in few starts."""

FIRST_REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    (
        "POST",
        "/v1/chat/completions",
        {"model": "m", "messages": [{"role": "user", "content": "a"}]},
    ),
    ("POST", "/v1/responses", {"model": "m", "input": [{"role": "user", "content": "a"}]}),
    ("POST", "/v1/completions", {"model": "m", "prompt": "a", "temperature": 9}),
    ("POST", "/v1/embeddings", {"input": ["a"], "dimensions": 0}),
    ("POST", "/answer", {"prompt": "a", "temperature": 9}),
    ("PUT", "/profiles/other", {"temperature": 0.5}),
    ("POST", "/auth/key", {"name": "guest"}),
    ("GET", "/keys", {}),
]
"""Requests that read bodies with nested types, and rows with types of their own."""


def serve_first_requests(folder: Path, blank_database: bytes) -> None:
    """Build the application, and send it its first requests at once, each in a thread."""
    service = Service(folder, blank_database)
    barrier = threading.Barrier(NUM_REQUESTS)
    failed: list[str] = []

    def ask(number: int) -> None:
        method, path, body = FIRST_REQUESTS[number % len(FIRST_REQUESTS)]
        barrier.wait()
        result = service.ask(method, path, body or None, key=service.admin)
        if result.status_code >= 500 and result.status_code != 503:
            failed.append(f"{method} {path}: {result.status_code}")

    threads = [threading.Thread(target=ask, args=[number]) for number in range(NUM_REQUESTS)]
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        sys.exit("; ".join(failed))


def main(folder: Path, num_starts: int) -> None:
    """Print how each start ended that did not end well, and end with 1 if there is one."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    empty_database(folder / "blank.db")
    blank_database = (folder / "blank.db").read_bytes()
    num_bad = 0
    for number in range(num_starts):
        pid = os.fork()
        if not pid:
            code = 1
            try:
                own = folder / str(number)
                own.mkdir()
                serve_first_requests(own, blank_database)
                code = 0
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code:
            num_bad += 1
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            sys.stdout.write(f"start {number}: {how}\n")
    sys.stdout.write(f"{num_bad} of {num_starts} starts ended badly\n")
    sys.exit(bool(num_bad))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
