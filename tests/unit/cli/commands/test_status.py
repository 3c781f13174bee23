"""`llmd status` against a small server that speaks the daemon's API."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.command_line import llmd
from tests.support.fake_daemon import STATUS, FakeDaemon


def test_status_shows_model_and_load(config: Path) -> None:
    """`status` prints a name and a value on each line, and exits with 0 if ready."""
    result = llmd(config, "status")
    assert result.exit_code == 0, result.stderr
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert lines["state"] == "ready"
    assert lines["model"] == "m.gguf"
    assert lines["sequences"] == "2 of 8 running, 1 waiting"
    assert lines["uptime"] == "1 d 2 h"


def test_status_as_json_says_whether_it_is_ready(config: Path, daemon: FakeDaemon) -> None:
    """`status --json` prints the object of the API with the address and the readiness."""
    shown = json.loads(llmd(config, "status", "--json").stdout)
    assert shown == {"url": daemon.url, "ready": True, **STATUS}


def test_status_fails_while_the_daemon_is_not_ready(config: Path, daemon: FakeDaemon) -> None:
    """While the model is loading, the exit status is 1 and standard error has the reason."""
    daemon.health = (503, {"status": "loading", "reason": "the model is loading"})
    result = llmd(config, "status")
    assert result.exit_code == 1
    assert result.stderr == "llmd: not ready: the model is loading\n"
    shown = llmd(config, "status", "--json")
    assert (shown.exit_code, json.loads(shown.stdout)["ready"]) == (1, False)


def test_status_without_a_key_shows_the_health(
    config: Path, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """Without a key, `status` shows the health, for which none is needed."""
    (tmp_path / "admin.key").unlink()
    result = llmd(config, "status")
    assert result.exit_code == 0
    assert "m.gguf" in result.stdout
    assert daemon.keys == [None]


def test_status_fails_if_nothing_answers(config: Path) -> None:
    """The exit status is 1 if the daemon cannot be reached."""
    result = llmd(config, "status", "--url", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert "llmd: cannot show the status: llmd does not answer at" in result.stderr
