"""Conversations that continue from their saved state after a restart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.client import Client
from tests.e2e.daemon import Daemon, Starter
from tests.e2e.waiting import until

pytestmark = pytest.mark.e2e

TOLD = "This is the story of a lighthouse and of the people who lived there. " * 25
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 12}


def _files(daemon: Daemon) -> list[Path]:
    return list((daemon.folder / "cache").rglob("*.kv"))


def _next_turn(client: Client) -> Any:
    return client.ask("Who lived there?", session_id="s", **GREEDY)


def _num_cached(answer: Any) -> int:
    return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])


@pytest.mark.parametrize("ends", ["stop", "kill"])
def test_a_conversation_is_warm_after_a_restart(start_daemon: Starter, ends: str) -> None:
    """After a stop or a crash the next turn reuses the state on disk; its answer is the same."""
    daemon = start_daemon()
    other = daemon.user()
    for client in (daemon.client, other):
        client.ask(TOLD, session_id="s", **GREEDY)
    expected = _next_turn(other)
    if ends == "kill":
        until(lambda: len(_files(daemon)) >= 2, "the states of both are on the disk")
        daemon.kill()
    else:
        assert daemon.stop() == 0
    daemon.start()
    answer = _next_turn(daemon.client)
    assert answer["result"] == expected["result"]
    assert answer["usage"]["prompt_tokens"] == expected["usage"]["prompt_tokens"]
    assert _num_cached(answer) > 0.9 * answer["usage"]["prompt_tokens"]


def test_a_state_is_deleted_with_its_session_or_key(start_daemon: Starter) -> None:
    """Deleting a session or a key deletes the files of its states."""
    daemon = start_daemon()
    other = daemon.user("other")
    for client in (daemon.client, other):
        client.ask(TOLD, session_id="s", **GREEDY)
    until(lambda: len(_files(daemon)) == 2, "the states of both are on the disk")
    daemon.client.call("DELETE", "/sessions/s")
    until(lambda: len(_files(daemon)) == 1, "that of the session is gone")
    keys = daemon.client.get("/keys").body["keys"]
    [key] = [key["id"] for key in keys if key["name"] == "other"]
    daemon.client.call("DELETE", f"/keys/{key}")
    until(lambda: not _files(daemon), "that of the key is gone")


def test_the_place_of_a_state_is_reported(start_daemon: Starter) -> None:
    """The admin sees whether a session's state is in a slot or, after a restart, on disk."""
    daemon = start_daemon()

    def warm() -> list[str | None]:
        listed = daemon.run("session", "list", "--json", LLMD_KEY=daemon.key)
        return [session["warm"] for session in json.loads(listed)["sessions"]]

    daemon.client.ask(TOLD, session_id="s", **GREEDY)
    assert warm() == ["slot"]
    daemon.stop()
    assert warm() == [None]
    daemon.start()
    assert warm() == ["disk"]
    [state] = daemon.client.get("/states").body["states"]
    assert (state["session"], state["place"]) == ("s", "disk")
    assert state["tokens"] > 300
    assert daemon.user().get("/states").status == 403
    assert "slot" not in daemon.run("session", "list")


def test_a_corrupt_state_is_not_used(start_daemon: Starter) -> None:
    """If the file of a state is corrupt, the whole prompt is computed, and the log says so."""
    daemon = start_daemon()
    daemon.client.ask(TOLD, session_id="s", **GREEDY)
    daemon.stop()
    [file] = _files(daemon)
    raw = bytearray(file.read_bytes())
    raw[-100] ^= 255
    file.write_bytes(raw)
    daemon.start()
    answer = _next_turn(daemon.client)
    assert _num_cached(answer) == 0
    assert "cannot be used" in daemon.log


def test_a_request_computed_anew_gives_the_same_text(start_daemon: Starter) -> None:
    """A long greedy request, alone on a daemon that was just started, always gets one text.

    Its answer repeats the prompt, so that tokens are drafted. No state is kept in between.
    """
    daemon = start_daemon(cache={"disk_bytes": 0})
    prompt = f"Repeat this story word by word. {TOLD}"
    texts: set[str] = set()
    for _ in range(3):
        answer = daemon.client.ask(prompt, temperature=0, max_tokens=50)
        assert _num_cached(answer) < 50
        texts.add(answer["result"])
        daemon.kill()
        daemon.start()
    assert len(texts) == 1
