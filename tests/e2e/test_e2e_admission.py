"""Admission with one stream and a queue for one: refusals, and clients that disconnect."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from typing import Any

import pytest

from tests.e2e.client import Client
from tests.e2e.daemon import Daemon, Starter
from tests.e2e.waiting import until

pytestmark = pytest.mark.e2e

STORY = "Write a long story about a lighthouse keeper and the sea."
LONG: dict[str, Any] = {"temperature": 0, "max_tokens": 3000, "stop": ["~~"]}
# With 16 tokens per step, computing a prompt takes many steps.
NARROW = {
    "server": {"max_streams": 1, "max_queue": 1},
    "engine": {"context": 8192, "parallel": 2, "batch": 16},
}


def _num_turns(daemon: Daemon, session: str) -> int:
    reply = daemon.client.get(f"/sessions/{session}")
    return 0 if reply.status == 404 else int(reply.body["num_turns"])


def test_a_full_server_refuses_at_once_and_still_reports_its_health(start_daemon: Starter) -> None:
    """With stream and queue full, requests get 503; a client that leaves lets the next one in."""
    daemon = start_daemon(**NARROW)
    with (
        ThreadPoolExecutor(1) as pool,
        daemon.client.stream(STORY, session_id="first", **LONG) as stream,
    ):
        stream.next("token")
        second = pool.submit(daemon.client.ask, "Say hello.", session_id="second", max_tokens=2)
        daemon.wait_streams(active=1, queued=1)
        for _ in range(3):
            third = daemon.client.call("POST", "/answer", {"prompt": "hi"})
            assert (third.status, third.code) == (503, "busy")
            assert int(third.headers["retry-after"]) >= 1
            streamed = daemon.client.call("POST", "/answer", {"prompt": "hi", "stream": True})
            assert (streamed.status, streamed.code) == (503, "busy")
        assert Client(daemon.port, None).get("/health").status == 200
        assert daemon.client.get("/auth").body["auth"] is True
        # All refusals happened while the stream and the queue were full.
        assert not second.done()
        assert daemon.streams()["active"] == daemon.streams()["queued"] == 1
        stream.close()
        assert second.result()["usage"]["completion_tokens"] == 2
    daemon.wait_idle()
    (turn,) = daemon.client.get("/sessions/first").body["turns"]
    assert turn["finish_reason"] == "cancelled"
    assert turn["assistant"]
    assert 0 < turn["usage"]["completion_tokens"] < LONG["max_tokens"]


def test_a_client_that_leaves_the_queue_frees_it(start_daemon: Starter) -> None:
    """A client that disconnects while queued is not answered, and another one can queue."""
    daemon = start_daemon(**NARROW)
    with daemon.client.stream(STORY, **LONG) as stream:
        stream.next("token")
        waiting = daemon.client.post_and_leave("hi", session_id="left")
        daemon.wait_streams(active=1, queued=1)
        waiting.close()
        daemon.wait_streams(active=1, queued=0)
        waiting = daemon.client.post_and_leave("hi", session_id="left", stream=True)
        daemon.wait_streams(active=1, queued=1)
        waiting.close()
        daemon.wait_streams(active=1, queued=0)
    daemon.wait_idle()
    assert _num_turns(daemon, "left") == 0
    assert daemon.client.ask("Say hello.", max_tokens=2)["result"]


def test_a_client_that_leaves_during_prefill_stops_it(start_daemon: Starter) -> None:
    """A client that leaves before the first token leaves no turn, and its prompt is abandoned."""
    daemon = start_daemon(**NARROW)
    daemon.client.ask("Say hello.", max_tokens=2)
    before = daemon.client.get("/status").body["tokens"]["completion"]
    for is_stream in (False, True):
        leaving = daemon.client.post_and_leave(
            "one two three four five " * 350, session_id="left", stream=is_stream, max_tokens=50
        )
        until(
            lambda: daemon.client.get("/status").body["sequences"]["running"] == 1,
            "the prompt is being read",
        )
        leaving.close()
        daemon.wait_idle()
    after = daemon.client.get("/status").body["tokens"]["completion"]
    assert after == before
    assert _num_turns(daemon, "left") == 0


def test_a_client_that_leaves_a_whole_answer_stops_it(start_daemon: Starter) -> None:
    """If the client of an unstreamed answer leaves, the answer stops and its part is stored."""
    daemon = start_daemon(**NARROW)
    began = daemon.client.get("/status").body["tokens"]["completion"]
    leaving = daemon.client.post_and_leave(STORY, session_id="left", **LONG)
    until(
        lambda: daemon.client.get("/status").body["tokens"]["completion"] > began + 3,
        "some tokens are made",
    )
    leaving.close()
    daemon.wait_idle()
    (turn,) = daemon.client.get("/sessions/left").body["turns"]
    assert turn["finish_reason"] == "cancelled"
    assert turn["usage"]["completion_tokens"] < LONG["max_tokens"]


def test_the_next_turn_sees_a_cancelled_one(start_daemon: Starter) -> None:
    """A cancelled turn belongs to the conversation: it is in the next prompt."""
    daemon = start_daemon(**NARROW)
    with daemon.client.stream(STORY, session_id="talk", **LONG) as stream:
        stream.next("token")
        stream.next("token")
    answer = daemon.client.ask("Go on.", session_id="talk", max_tokens=2)
    assert answer["turns_in_prompt"] == 1
    assert _num_turns(daemon, "talk") == 2


def test_a_reader_that_stalls_slows_nobody(daemon: Daemon) -> None:
    """A client that does not read its stream does not block others, and its stream completes."""
    client = daemon.user()
    stalled = [
        client.post_and_leave(f"{STORY} Story {number}.", stream=True, max_tokens=64)
        for number in range(4)
    ]
    answers: list[Any] = []
    other = Thread(target=lambda: answers.append(client.ask("Say hello.", max_tokens=4)))
    other.start()
    other.join()
    assert answers[0]["result"]
    daemon.wait_idle()
    for sock in stalled:
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            chunk = sock.recv(65536)
            assert chunk, "the stream was cut off"
            received += chunk
        sock.close()
        assert b"event: done" in received
