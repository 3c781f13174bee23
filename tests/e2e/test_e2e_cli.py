"""The command line with a running daemon, used by a person and by a script."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon, Starter, environment

pytestmark = pytest.mark.e2e

STORY = "Write a long story about a lighthouse keeper and the sea."


def _watch(arguments: list[str]) -> list[str]:
    """Run a command on a terminal and return the pieces of its output."""
    ours, theirs = pty.openpty()
    pieces = []
    process = subprocess.Popen(
        arguments, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL, env=environment()
    )
    os.close(theirs)
    try:
        while piece := os.read(ours, 4096):
            pieces.append(piece.decode())
    except OSError:
        # A terminal reports this when its other end is closed.
        pass
    finally:
        os.close(ours)
    assert process.wait() == 0
    return pieces


def test_ask_streams_to_the_terminal(daemon: Daemon) -> None:
    """The terminal shows the answer in pieces while it is generated."""
    whole = daemon.client.ask(STORY, temperature=0, max_tokens=40)["result"]
    options = ["--temperature", "0", "--max-tokens", "40"]
    command = [sys.executable, "-m", "llmd", "--config", str(daemon.config), "ask", STORY]
    pieces = _watch(command + options)
    assert len(pieces) > 5
    assert "".join(pieces).replace("\r\n", "\n") == whole + "\n"


def test_ask_into_a_pipe_prints_only_the_answer(daemon: Daemon) -> None:
    """Streamed or not, the output is the answer and a newline, and nothing else."""
    whole = daemon.client.ask("Say hello.", temperature=0, max_tokens=8)["result"]
    options = ["--temperature", "0", "--max-tokens", "8"]
    assert daemon.run("ask", "Say hello.", *options) == whole + "\n"
    assert daemon.run("ask", "Say hello.", *options, "--no-stream") == whole + "\n"
    printed = json.loads(daemon.run("ask", "Say hello.", *options, "--json"))
    assert printed["result"] == whole


def test_ask_remembers_a_session(daemon: Daemon) -> None:
    """A question has the earlier ones in its prompt with --session, and none without."""
    brief = ["--max-tokens", "2", "--json"]
    session = [*brief, "--session", "cli-talk"]
    counts = [
        json.loads(daemon.run("ask", "My name is Zoltan.", *session))["turns_in_prompt"],
        json.loads(daemon.run("ask", "What is my name?", *session))["turns_in_prompt"],
        json.loads(daemon.run("ask", "What is my name?", *brief))["turns_in_prompt"],
    ]
    assert counts == [0, 1, 0]
    shown = daemon.run("session", "show", "cli-talk")
    assert "My name is Zoltan." in shown
    assert "What is my name?" in shown


def test_ask_uses_the_given_key(daemon: Daemon, tmp_path: Path) -> None:
    """LLMD_KEY and --key-file select the key; a wrong key is an error without a traceback."""
    made = daemon.client.call("POST", "/auth/key", {"name": "other"}).body
    brief = ["--max-tokens", "1", "--session", "mine"]
    daemon.run("ask", "Say hello.", *brief, LLMD_KEY=made["key"])
    (tmp_path / "key").write_text(made["key"] + "\n")
    daemon.run("ask", "Say hello.", *brief, "--key-file", str(tmp_path / "key"))
    listed = json.loads(daemon.run("session", "list", "--key", made["id"], "--json"))
    assert [(s["id"], s["num_turns"]) for s in listed["sessions"]] == [("mine", 2)]
    assert not daemon.run("ask", "Say hello.", code=1, LLMD_KEY="llmd_wrong")


def test_status_shows_the_daemon_and_its_model(start_daemon: Starter) -> None:
    """The status has exit code 0 while the daemon runs, and 1 if it cannot be reached."""
    daemon = start_daemon()
    status = json.loads(daemon.run("status", "--json"))
    assert status["ready"] is True
    assert status["model"] == "a.gguf"
    assert status["profile"] == "default"
    assert "a.gguf" in daemon.run("status")
    assert daemon.stop() == 0
    daemon.run("status", code=1)
    daemon.run("ask", "Say hello.", code=1)


def test_model_use_switches_the_running_daemon(
    start_daemon: Starter, short_model_file: Path
) -> None:
    """`llmd model add` and `use` add a model and select it, without a restart."""
    daemon = start_daemon()
    pid = daemon.pid
    daemon.run("model", "add", str(short_model_file), "--name", "b.gguf", "--link")
    assert "b.gguf" in daemon.run("model", "list")
    daemon.run("model", "use", "b.gguf")
    assert daemon.client.ask("Say hello.", max_tokens=1)["model"] == "b.gguf"
    assert daemon.pid == pid


def test_a_profile_set_by_the_command_line_applies_to_the_next_request(daemon: Daemon) -> None:
    """A change of a profile applies to the next request, without a restart or reload."""
    daemon.run("profile", "set", "brief", "max_tokens=1", "temperature=0")
    assert daemon.client.ask("Say hello.", profile="brief")["usage"]["completion_tokens"] == 1
    daemon.run("profile", "set", "brief", "max_tokens=2")
    assert daemon.client.ask("Say hello.", profile="brief")["usage"]["completion_tokens"] == 2
    daemon.run("profile", "delete", "brief")
    reply = daemon.client.call("POST", "/answer", {"prompt": "hi", "profile": "brief"})
    assert (reply.status, reply.code) == (404, "profile_not_found")


def test_a_backup_of_a_running_daemon_is_complete(start_daemon: Starter, tmp_path: Path) -> None:
    """`llmd db backup` works while the daemon runs, and the restored copy has every turn."""
    daemon = start_daemon()
    daemon.client.ask("Say hello.", session_id="kept", max_tokens=1)
    daemon.run("db", "backup", str(tmp_path / "copy.db"))
    daemon.client.ask("Say hello.", session_id="later", max_tokens=1)
    assert daemon.stop() == 0
    daemon.run("db", "restore", str(tmp_path / "copy.db"))
    daemon.start()
    assert daemon.client.get("/answer").body == {"kept": "Say hello."}
    daemon.run("db", "check")
