"""The first requests after a start."""

from __future__ import annotations

import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.client import HOST, Reply
from tests.e2e.daemon import Daemon, Starter
from tests.e2e.waiting import until
from tests.support.first_requests import FIRST_REQUESTS, NUM_REQUESTS

pytestmark = pytest.mark.e2e

NUM_STARTS = int(os.environ.get("LLMD_TEST_STARTS", "3"))
"""The number of starts of the daemon; 200 before a release."""


def _accepts(daemon: Daemon) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((HOST, daemon.port)) == 0


def test_first_requests_at_once_never_end_the_daemon(start_daemon: Starter) -> None:
    """32 first requests at once are answered at each start, while the model is still loading."""
    daemon = start_daemon(server={"max_queue": NUM_REQUESTS})
    barrier = threading.Barrier(NUM_REQUESTS)

    def ask(number: int) -> Reply:
        method, path, body = FIRST_REQUESTS[number % len(FIRST_REQUESTS)]
        barrier.wait()
        return daemon.client.call(method, path, body or None)

    with ThreadPoolExecutor(NUM_REQUESTS) as pool:
        for _ in range(NUM_STARTS):
            daemon.kill()
            daemon.start(wait=False)
            until(lambda: _accepts(daemon), "the daemon listens", every_s=0.005)
            for reply in pool.map(ask, range(NUM_REQUESTS)):
                assert reply.status < 500 or reply.status == 503, reply
