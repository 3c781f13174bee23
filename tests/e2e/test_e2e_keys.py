"""Keys that are created, imported, revoked or expired while the daemon runs."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmd.auth import secret
from tests.e2e.client import Client, Stream
from tests.e2e.daemon import Daemon, Starter
from tests.e2e.waiting import until

pytestmark = pytest.mark.e2e

LONG = {"temperature": 0, "max_tokens": 4000, "stop": []}
MASTER, PLAIN = "Aa0" * 6 + "Zz", "b1" * 10
TEMPLATE = "A talk.\n\nCURRENT CONVERSATION: {chat_history}\n\nPROMPT: {input}\n\nBOT:"


def _write_seed(folder: Path) -> None:
    """Write the files of the small project that llmd replaces."""
    folder.mkdir()
    vicuna = {
        "model": "a.gguf",
        "n_ctx": 1024,
        "temperature": 0.7,
        "max_tokens": 4,
        "top_p": 0.8,
        "verbose": True,
        "template": TEMPLATE,
    }
    history = ["Human: hello", "AI: hi, friend"]
    files = {
        "config.json": {"SelectedModel": "Vicuna-13b", "Vicuna-13b": vicuna},
        "api_keys.json": {"0": MASTER, "1": PLAIN},
        "sessions.json": {"Active": 1, "1": {"name": "greeting", "history": history}},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))


def test_clients_of_the_older_project_continue_as_before(
    start_daemon: Starter, tmp_path: Path
) -> None:
    """After an import while the daemon runs, bare keys, sessions and the profile work."""
    daemon = start_daemon()
    _write_seed(tmp_path / "seed")
    output = daemon.run("import-seed", str(tmp_path / "seed"))
    assert "2 new keys" in output
    assert MASTER not in output + daemon.log
    master, plain = Client(daemon.port, MASTER), Client(daemon.port, PLAIN)
    assert (master.get("/auth").body["role"], plain.get("/auth").body["role"]) == ("admin", "user")
    assert master.get("/answer").body == {"1": "greeting"}
    assert plain.get("/answer").body == {}
    answer = master.ask("And now?", session_id=1)
    assert answer["profile"] == "Vicuna-13b"
    assert answer["turns_in_prompt"] == 1
    assert answer["usage"]["completion_tokens"] <= 4
    made = master.call("POST", "/auth/key", {}).body["key"]
    assert Client(daemon.port, made).get("/auth").body["auth"] is True
    assert plain.call("POST", "/auth/key", {}).status == 403
    assert Client(daemon.port, f"Bearer {PLAIN}").get("/auth").status == 200


def test_a_key_revoked_by_the_command_line_is_refused_at_once(start_daemon: Starter) -> None:
    """The next request with a revoked key gets 401, though the daemon had verified the key."""
    daemon = start_daemon()
    made = json.loads(daemon.run("key", "create", "guest", "--json"))
    guest = Client(daemon.port, made["key"])
    assert guest.get("/auth").body == {
        "auth": True,
        "id": made["id"],
        "name": "guest",
        "role": "user",
    }
    assert guest.ask("Say hello.", session_id=1, max_tokens=1)["session_id"] == "1"
    daemon.run("key", "revoke", made["id"])
    for method, path in (("GET", "/auth"), ("POST", "/answer"), ("GET", "/sessions/1")):
        reply = guest.call(method, path, {"prompt": "hi"} if method == "POST" else None)
        assert (reply.status, reply.code) == (401, "invalid_api_key")
        assert "bearer" in reply.headers["www-authenticate"].lower()
    assert daemon.client.get("/auth").status == 200
    assert made["key"] not in daemon.log


def _check_ended(stream: Stream, ended_at: float) -> None:
    """Check that the last event is the error, within a second."""
    last = stream.rest()[-1]
    assert (last.name, last.data["error"]["code"]) == ("error", "invalid_api_key")
    assert last.at - ended_at < 1


def test_a_key_that_is_revoked_ends_its_streams_and_its_queue(start_daemon: Starter) -> None:
    """Within a second, streams end in an error, queued requests in 401, and their slots are free.

    It makes no difference whether the API or the command line revokes the key.
    """
    daemon = start_daemon(server={"max_streams": 2})
    for revoke_by_command in (False, True):
        made = daemon.client.call("POST", "/auth/key", {"name": "guest"}).body
        guest = Client(daemon.port, made["key"])
        with (
            guest.stream("Tell me a story.", **LONG) as first,
            guest.stream("Tell me another.", **LONG) as second,
            ThreadPoolExecutor(1) as pool,
        ):
            first.next("token")
            second.next("token")
            queued = pool.submit(guest.call, "POST", "/answer", {"prompt": "hi"})
            daemon.wait_streams(active=2, queued=1)
            if revoke_by_command:
                daemon.run("key", "revoke", made["id"])
            else:
                assert daemon.client.call("DELETE", f"/keys/{made['id']}").status == 204
            ended_at = time.monotonic()
            reply = queued.result()
            assert time.monotonic() - ended_at < 1
            assert (reply.status, reply.code) == (401, "invalid_api_key")
            _check_ended(first, ended_at)
            _check_ended(second, ended_at)
        daemon.wait_idle()


def test_a_stream_ends_with_the_time_of_its_key(daemon: Daemon) -> None:
    """A stream ends in an error within a second after its key has expired."""
    made = daemon.client.call("POST", "/auth/key", {"name": "brief", "expires_in": 3}).body
    expires_at = time.monotonic() + made["expires_at"] - time.time()
    with Client(daemon.port, made["key"]).stream("Tell me a story.", **LONG) as stream:
        _check_ended(stream, expires_at)
    daemon.wait_idle()


def test_a_key_ends_with_its_time(daemon: Daemon) -> None:
    """A key is refused once it has expired, though the daemon had verified it."""
    made = daemon.client.call("POST", "/auth/key", {"name": "brief", "expires_in": 4}).body
    assert made["expires_at"]
    brief = Client(daemon.port, made["key"])
    assert brief.get("/auth").status == 200
    until(lambda: brief.get("/auth").status == 401, "the key expires")
    made = json.loads(daemon.run("key", "create", "brief", "--expires-in", "1s", "--json"))
    until(lambda: Client(daemon.port, made["key"]).get("/auth").status == 401, "it expires")


def test_no_key_opens_nothing_but_health(start_daemon: Starter) -> None:
    """Without a valid key every route except two answers 401, and guesses are rate-limited."""
    daemon = start_daemon()
    nobody = Client(daemon.port, None)
    for path in ("/answer", "/models", "/auth", "/sessions", "/profiles", "/status", "/keys"):
        assert nobody.get(path).status == 401
    assert nobody.get("/health").status == nobody.get("/livez").status == 200
    assert daemon.client.get("/auth").status == 200
    # Well-formed keys, each of which costs a database query.
    guesses = [secret.make().text for _ in range(12)]
    replies = [Client(daemon.port, guess).get("/auth") for guess in guesses]
    assert [reply.status for reply in replies] == [401] * 10 + [429] * 2
    assert int(replies[-1].headers["retry-after"]) >= 1
    # A client with a valid key is not locked out by another one that guesses.
    assert daemon.client.get("/auth").status == 200


def test_memory_of_key_checks_is_given_back(start_daemon: Starter) -> None:
    """New keys that are made and checked in many threads leave the daemon as small as before."""
    daemon = start_daemon(auth={"argon2": "small"})

    def used_mb() -> int:
        status = Path(f"/proc/{daemon.pid}/status").read_text()
        return int(status.partition("RssAnon:")[2].split()[0]) // 1024

    def make(_: int) -> None:
        reply = daemon.client.call("POST", "/auth/key", {"name": "new"})
        if reply.status == 200:
            Client(daemon.port, reply.body["key"]).get("/auth")
        else:
            assert reply.code == "busy"

    daemon.client.get("/auth")
    before_mb = used_mb()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(make, range(32)))
    assert used_mb() - before_mb < 40
