"""Signals: an orderly shutdown, an immediate one, and a reload of the configuration."""

from __future__ import annotations

import signal
import sqlite3
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from tests.e2e.client import Client, Reply
from tests.e2e.daemon import Daemon, Starter, is_alive
from tests.e2e.waiting import until

pytestmark = pytest.mark.e2e

STORY = "Write a long story about a lighthouse keeper and the sea."
ENDLESS: dict[str, Any] = {"temperature": 0, "max_tokens": 3000, "stop": ["~~"]}
ROOMY = {"context": 8192, "parallel": 2}


def _turns(daemon: Daemon) -> list[tuple[str, str, str]]:
    """Return (session, answer, finish_reason) of all turns, from the database."""
    query = (
        "SELECT s.id, t.assistant, t.finish_reason FROM turns t "
        "JOIN sessions s ON s.pk = t.session_pk ORDER BY s.id"
    )
    with closing(sqlite3.connect(daemon.database)) as tx:
        return tx.execute(query).fetchall()


def _wait_draining(daemon: Daemon) -> None:
    until(
        lambda: Client(daemon.port, None).get("/health").body["status"] == "draining",
        "/health says draining",
    )


def test_sigterm_lets_running_answers_finish(start_daemon: Starter) -> None:
    """On SIGTERM running answers complete, new requests are refused, and the exit code is 0."""
    daemon = start_daemon(server={"drain_s": 60})
    worker = daemon.worker_pid()
    whole: Future[Reply]
    with (
        ThreadPoolExecutor(1) as pool,
        daemon.client.stream(STORY, session_id="streamed", temperature=0, max_tokens=60) as stream,
    ):
        body = {"prompt": STORY, "session_id": "whole", "temperature": 0, "max_tokens": 120}
        whole = pool.submit(daemon.client.call, "POST", "/answer", body)
        stream.next("token")
        daemon.wait_streams(active=2, queued=0)
        daemon.signal(signal.SIGTERM)
        _wait_draining(daemon)
        refused = daemon.client.call("POST", "/answer", {"prompt": "hi"})
        assert (refused.status, refused.code) == (503, "draining")
        assert int(refused.headers["retry-after"]) >= 1
        assert int(Client(daemon.port, None).get("/health").headers["retry-after"]) >= 1
        done = stream.rest()[-1]
        assert done.name == "done"
        reply = whole.result()
        assert reply.status == 200
    assert daemon.wait_end() == 0
    assert not is_alive(worker)
    streamed, full = done.data, reply.body
    assert _turns(daemon) == [
        ("streamed", streamed["result"], streamed["finish_reason"]),
        ("whole", full["result"], full["finish_reason"]),
    ]


def test_the_last_answer_before_the_end_is_complete(start_daemon: Starter) -> None:
    """The answer that ends the drain reaches its client before the process ends."""
    daemon = start_daemon()
    for number in range(4):
        is_stream = number % 2 == 0
        body = {"prompt": STORY, "session_id": number, "max_tokens": 12, "stream": is_stream}
        with ThreadPoolExecutor(1) as pool:
            raw = {key: value for key, value in body.items() if key not in {"prompt", "stream"}}
            if is_stream:
                with daemon.client.stream(STORY, **raw) as stream:
                    daemon.signal(signal.SIGTERM)
                    assert stream.rest()[-1].name == "done"
            else:
                asked = pool.submit(daemon.client.call, "POST", "/answer", body)
                daemon.wait_streams(active=1, queued=0)
                daemon.signal(signal.SIGTERM)
                assert asked.result().status == 200
        assert daemon.wait_end() == 0
        daemon.start()
    assert [turn[0] for turn in _turns(daemon)] == ["0", "1", "2", "3"]


def test_the_time_to_drain_is_limited(start_daemon: Starter) -> None:
    """After `drain_s` answers end with a typed error, their parts are stored; exit code 0."""
    daemon = start_daemon(server={"drain_s": 0.5}, engine=ROOMY)
    with (
        ThreadPoolExecutor(1) as pool,
        daemon.client.stream(STORY, session_id="streamed", **ENDLESS) as stream,
    ):
        body = {"prompt": STORY, "session_id": "whole", **ENDLESS}
        whole = pool.submit(daemon.client.call, "POST", "/answer", body)
        stream.next("token")
        daemon.wait_streams(active=2, queued=0)
        until(
            lambda: daemon.client.get("/status").body["sequences"]["running"] == 2,
            "both are running",
        )
        daemon.signal(signal.SIGTERM)
        events = stream.rest()
        assert events[-1].name == "error"
        assert events[-1].data["error"]["code"] == "draining"
        reply = whole.result()
        assert (reply.status, reply.code) == (503, "draining")
    assert daemon.wait_end() == 0
    kept = {session: (text, reason) for session, text, reason in _turns(daemon)}
    assert kept.keys() == {"streamed", "whole"}
    assert all(text and reason == "cancelled" for text, reason in kept.values())


def test_a_second_sigterm_ends_at_once(start_daemon: Starter) -> None:
    """A second SIGTERM ends the daemon and its worker without waiting for answers."""
    daemon = start_daemon(server={"drain_s": 300}, engine=ROOMY)
    worker = daemon.worker_pid()
    with daemon.client.stream(STORY, session_id="cut", **ENDLESS) as stream:
        stream.next("token")
        daemon.signal(signal.SIGTERM)
        _wait_draining(daemon)
        daemon.signal(signal.SIGTERM)
        assert daemon.wait_end() == 1
        with pytest.raises(ConnectionError, match="cut off"):
            stream.rest()
    until(lambda: not is_alive(worker), "the worker ends with its daemon")
    daemon.start()
    assert daemon.client.ask("Say hello.", max_tokens=2)["result"]


def test_sigterm_ends_a_daemon_that_is_loading(start_daemon: Starter) -> None:
    """SIGTERM ends the daemon even before the model is loaded."""
    daemon = start_daemon()
    daemon.stop()
    daemon.start(wait=False)
    until(lambda: daemon.log.count("listening on") == 2, "it listens")
    assert daemon.stop() == 0


def test_sighup_reloads_the_configuration(start_daemon: Starter) -> None:
    """A wrong file changes nothing; a valid one takes effect without interrupting requests."""
    daemon = start_daemon(log={"format": "text", "level": "warning"})
    pid, worker = daemon.pid, daemon.worker_pid()
    daemon.client.get("/auth")
    assert "GET /auth" not in daemon.log
    with daemon.client.stream(STORY, temperature=0, max_tokens=60) as stream:
        stream.next("token")
        daemon.config.write_text("[log]\nlevel = 5\n[nonsense]\n")
        daemon.signal(signal.SIGHUP)
        until(lambda: "is not reloaded, the old one stays" in daemon.log, "the file is refused")
        assert "log.level" in daemon.log
        assert daemon.client.get("/auth").status == 200
        assert "GET /auth" not in daemon.log
        server = {"max_queue": 3, "allowed_hosts": ["llmd.example"]}
        daemon.configure({"log": {"level": "info"}, "server": server})
        daemon.signal(signal.SIGHUP)
        until(lambda: "the configuration is reloaded" in daemon.log, "the file is taken")
        assert stream.rest()[-1].name == "done"
    assert daemon.client.get("/auth").status == 403
    until(lambda: "GET /auth 403" in daemon.log, "requests are logged")
    daemon.configure({"log": {"level": "info"}, "server": {"max_queue": 3}})
    daemon.signal(signal.SIGHUP)
    until(lambda: daemon.client.get("/auth").status == 200, "any host will do again")
    assert daemon.streams()["max_queue"] == 3
    assert (daemon.pid, daemon.worker_pid()) == (pid, worker)
