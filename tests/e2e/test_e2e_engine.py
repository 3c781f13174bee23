"""A worker that dies or hangs: its requests fail, the daemon runs on and replaces it."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.client import Client, Event
from tests.e2e.daemon import Daemon, Starter, is_alive
from tests.e2e.waiting import until

pytestmark = pytest.mark.e2e

STORY = "Write a long story about a lighthouse keeper and the sea."
LONG = {"temperature": 0, "max_tokens": 900, "stop": ["~~"]}


def _break_in_mid_stream(daemon: Daemon, number: signal.Signals) -> Event:
    """Send the worker a signal after the first tokens; return the stream's last event."""
    with daemon.client.stream(STORY, session_id="broken", **LONG) as stream:
        stream.next("token")
        stream.next("token")
        os.kill(daemon.worker_pid(), number)
        return stream.rest()[-1]


def _check_died(event: Event) -> None:
    assert event.name == "error", event
    assert event.data["error"]["code"] == "engine_died"
    assert event.data["message"] == event.data["error"]["message"]


def test_a_killed_worker_is_replaced(start_daemon: Starter) -> None:
    """The stream ends with a typed error, other routes answer, and soon the model does too."""
    daemon = start_daemon()
    pid, worker = daemon.pid, daemon.worker_pid()
    _check_died(_break_in_mid_stream(daemon, signal.SIGKILL))
    health = Client(daemon.port, None).get("/health")
    assert health.status == 503
    assert health.body["status"] == "loading"
    assert int(health.headers["retry-after"]) >= 1
    asked = daemon.client.call("POST", "/answer", {"prompt": "hi"})
    assert (asked.status, asked.code) == (503, "model_loading")
    assert int(asked.headers["retry-after"]) >= 1
    for path in ("/auth", "/sessions", "/models", "/status"):
        assert daemon.client.get(path).status == 200
    assert Client(daemon.port, None).get("/livez").status == 200
    # The answer was not acknowledged, so it is not stored.
    assert daemon.client.get("/sessions/broken").status == 404
    daemon.wait_healthy()
    assert daemon.client.ask("Say hello.", max_tokens=2)["usage"]["completion_tokens"] == 2
    assert daemon.pid == pid
    assert daemon.worker_pid() != worker
    assert daemon.client.get("/status").body["restarts"] == 1
    daemon.wait_idle()


def test_all_streams_of_a_killed_worker_end_with_an_error(start_daemon: Starter) -> None:
    """Each of four streams gets the error as its last event, and all of them are freed."""
    daemon = start_daemon()

    def ask(number: int) -> Event:
        with daemon.client.stream(f"{STORY} Story {number}.", **LONG) as stream:
            return stream.rest()[-1]

    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(ask, number) for number in range(4)]
        until(
            lambda: daemon.client.get("/status").body["sequences"]["running"] == 4,
            "four sequences run",
        )
        os.kill(daemon.worker_pid(), signal.SIGSEGV)
        for run in runs:
            _check_died(run.result())
    daemon.wait_healthy()
    daemon.wait_idle()


def test_a_hanging_worker_is_killed_and_replaced(start_daemon: Starter) -> None:
    """A worker that makes no progress within a stream is replaced after `stall_s`."""
    daemon = start_daemon(engine={"context": 8192, "stall_s": 1})
    worker = daemon.worker_pid()
    _check_died(_break_in_mid_stream(daemon, signal.SIGSTOP))
    until(lambda: not is_alive(worker), "the hanging worker is gone")
    daemon.wait_healthy()
    assert daemon.client.ask("Say hello.", max_tokens=2)["result"]
    assert daemon.worker_pid() != worker


def test_a_worker_that_hangs_before_its_first_step_is_replaced(start_daemon: Starter) -> None:
    """Answers, embeddings and queries to a new worker that hangs fail after `stall_s`."""
    daemon = start_daemon(engine={"context": 8192, "stall_s": 1})
    for path, body in (
        ("/answer", {"prompt": "hi"}),
        ("/v1/embeddings", {"input": "hi"}),
        ("/tokenize", {"content": "hi"}),
    ):
        os.kill(daemon.worker_pid(), signal.SIGSTOP)
        began = time.monotonic()
        reply = daemon.client.call("POST", path, body)
        assert (reply.status, reply.code) == (503, "engine_died")
        assert time.monotonic() - began < 10
        if path == "/tokenize":
            break
        daemon.wait_healthy()


def test_an_idle_worker_that_hangs_is_found_by_the_next_request(start_daemon: Starter) -> None:
    """A worker that hangs between requests fails only the next request."""
    daemon = start_daemon(engine={"context": 8192, "stall_s": 1})
    daemon.client.ask("Say hello.", max_tokens=2)
    os.kill(daemon.worker_pid(), signal.SIGSTOP)
    reply = daemon.client.call("POST", "/answer", {"prompt": "hi"})
    assert (reply.status, reply.code) == (503, "engine_died")
    assert int(reply.headers["retry-after"]) >= 1
    daemon.wait_healthy()
    assert daemon.client.ask("Say hello.", max_tokens=2)["result"]


def test_three_deaths_stop_the_model_until_an_admin_loads_it(start_daemon: Starter) -> None:
    """A model whose worker dies three times has failed, until an admin loads it again."""
    daemon = start_daemon()
    for _ in range(2):
        os.kill(daemon.worker_pid(), signal.SIGKILL)
        until(lambda: Client(daemon.port, None).get("/health").status == 503, "/health says so")
        daemon.wait_healthy()
    os.kill(daemon.worker_pid(), signal.SIGKILL)
    until(
        lambda: Client(daemon.port, None).get("/health").body["status"] == "failed",
        "the model is failed",
    )
    health = Client(daemon.port, None).get("/health")
    assert "died 3 times" in health.body["reason"]
    assert int(health.headers["retry-after"]) >= 1
    asked = daemon.client.call("POST", "/answer", {"prompt": "hi"})
    assert (asked.status, asked.code) == (503, "engine_failed")
    assert daemon.worker_pids() == []
    loaded = daemon.client.call("POST", "/models/model", {"model": "a.gguf"})
    assert loaded.body["model_status"] is True
    assert daemon.client.ask("Say hello.", max_tokens=2)["result"]
