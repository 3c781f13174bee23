"""Many clients at once: their answers run in parallel and never mix."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Barrier

import pytest

from tests.e2e.client import Client, Event
from tests.e2e.daemon import Daemon

pytestmark = pytest.mark.e2e

NUM_CLIENTS = 8


def _stream(client: Client, barrier: Barrier, number: int) -> list[Event]:
    barrier.wait()
    prompt = f"Write a long story about {number} sailors and the sea."
    with client.stream(prompt, temperature=0, max_tokens=48, stop=["~~"]) as stream:
        return stream.rest()


def test_eight_streams_run_in_parallel(daemon: Daemon) -> None:
    """Each of eight streams has its first token before any of them has its last."""
    client, barrier = daemon.user(), Barrier(NUM_CLIENTS)
    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        runs = [pool.submit(_stream, client, barrier, number) for number in range(NUM_CLIENTS)]
        streams = [run.result() for run in runs]
    assert all(events[-1].name == "done" for events in streams)
    assert all(events[-1].data["usage"]["completion_tokens"] == 48 for events in streams)
    assert max(events[0].at for events in streams) < min(events[-1].at for events in streams)
    # Tokens of different streams alternate, too, rather than come in blocks of one stream.
    at = sorted((event.at, number) for number, events in enumerate(streams) for event in events)
    num_changes = sum(before[1] != after[1] for before, after in pairwise(at))
    assert num_changes > len(at) / 3


def _talk(client: Client, word: str) -> list[int]:
    counts = []
    for turn in range(4):
        prompt = f"Our {word} word number {turn} is {word}."
        answer = client.ask(prompt, session_id=1, temperature=0, max_tokens=4)
        counts.append(answer["usage"]["prompt_tokens"])
    return counts


def test_two_keys_with_the_same_session_never_meet(daemon: Daemon) -> None:
    """Session 1 of one key and session 1 of another have only their own turns."""
    words = ["apple", "table"]
    clients = [daemon.user(word) for word in words]
    with ThreadPoolExecutor(2) as pool:
        counts = list(pool.map(_talk, clients, words))
    alone = _talk(daemon.user("alone"), words[0])
    assert counts[0] == alone
    for client, word, other in zip(clients, words, reversed(words), strict=True):
        session = client.get("/sessions/1").body
        assert [turn["user"].split()[-1] for turn in session["turns"]] == [f"{word}."] * 4
        assert other not in str(session)
        assert client.get("/answer").body == {"1": f"Our {word} word number 0 is {word}."[:30]}


def test_one_session_asked_at_once_keeps_its_turns_in_order(daemon: Daemon) -> None:
    """Requests of one session run in turn: each has all earlier turns in its prompt."""
    client = daemon.user()

    def ask(number: int) -> int:
        answer = client.ask(f"Number {number}.", session_id=7, temperature=0, max_tokens=2)
        return int(answer["turns_in_prompt"])

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(ask, range(4))) == [0, 1, 2, 3]
    turns = client.get("/sessions/7").body["turns"]
    assert [turn["seq"] for turn in turns] == [1, 2, 3, 4]
