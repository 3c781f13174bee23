"""`llmd ask` against a small server that speaks the daemon's API."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import llmd
from tests.support.fake_daemon import RESULT, FakeDaemon, error, event


def test_an_answer_is_printed_as_it_arrives(config: Path, daemon: FakeDaemon) -> None:
    """`ask` calls the configured address with the admin's key, and prints to a pipe unchanged."""
    result = llmd(config, "ask", "Capital of France?")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "Paris\x1b[2J.\n", "")
    assert daemon.asked == [{"prompt": "Capital of France?", "stream": True}]
    assert daemon.keys == ["Bearer llmd_admin"]


def test_a_stream_is_read_to_its_end(config: Path, daemon: FakeDaemon) -> None:
    """`ask` closes the connection only after the end, or the daemon would see a lost client."""
    for _ in range(20):
        assert llmd(config, "ask", "x").exit_code == 0
    assert daemon.broken == []


def test_options_become_fields(config: Path, daemon: FakeDaemon) -> None:
    """Each option of `ask` is sent as the field of the API with the same name."""
    sampling = ["--max-tokens", "9", "--temperature", "0", "--seed", "3"]
    llmd(config, "ask", "--session", "7", "--profile", "p", *sampling, "x")
    assert daemon.asked[0] == {
        "prompt": "x",
        "session_id": "7",
        "profile": "p",
        "max_tokens": 9,
        "temperature": 0.0,
        "seed": 3,
        "stream": True,
    }


def test_a_dash_takes_the_question_from_standard_input(config: Path, daemon: FakeDaemon) -> None:
    """`ask -` reads the question without the line break that ends a text file."""
    llmd(config, "ask", "-", stdin="two\nlines\n")
    assert daemon.asked[0]["prompt"] == "two\nlines"


def test_an_empty_question_is_wrong_usage(config: Path, daemon: FakeDaemon) -> None:
    """An empty question is refused without calling the daemon."""
    assert llmd(config, "ask", "-", stdin="\n").exit_code == 2
    assert daemon.asked == []


def test_an_answer_can_be_printed_at_once(config: Path, daemon: FakeDaemon) -> None:
    """`ask --no-stream` makes one call without streaming."""
    result = llmd(config, "ask", "--no-stream", "x")
    assert result.stdout == "Paris\x1b[2J.\n"
    assert daemon.asked == [{"prompt": "x"}]


@pytest.mark.parametrize("more", [[], ["--no-stream"]])
def test_json_is_the_body_of_the_api(config: Path, more: list[str]) -> None:
    """`ask --json` prints the whole response of the API, and nothing else."""
    assert json.loads(llmd(config, "ask", "x", "--json", *more).stdout) == RESULT


def test_verbose_prints_tokens_and_times_on_standard_error(config: Path) -> None:
    """`ask -v` writes one line of numbers to standard error."""
    result = llmd(config, "ask", "-v", "x")
    assert result.stdout == "Paris\x1b[2J.\n"
    assert "prompt 31 tokens, 7 of them cached, read in 0.25 s" in result.stderr
    assert "answer 12 tokens in 0.50 s (24.0 tokens/s)" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_daemons_error_message_is_shown(config: Path, daemon: FakeDaemon) -> None:
    """The message of an error response follows `cannot ask`."""
    daemon.answer = (404, error("no profile x: see the list of profiles", "profile_not_found"))
    for more in ([], ["--no-stream"]):
        result = llmd(config, "ask", "x", *more)
        assert result.exit_code == 1
        assert result.stderr == "llmd: cannot ask: no profile x: see the list of profiles\n"


def test_an_error_within_the_stream_follows_the_partial_answer(
    config: Path, daemon: FakeDaemon
) -> None:
    """The text so far stays on a line of its own, and the exit status is 1."""
    daemon.stream[2:] = [event("error", error("the worker died", "engine_died"))]
    result = llmd(config, "ask", "x")
    assert (result.exit_code, result.stdout) == (1, "Paris\n")
    assert result.stderr == "llmd: cannot ask: the worker died\n"


def test_a_stream_without_its_last_event_is_an_error(config: Path, daemon: FakeDaemon) -> None:
    """A stream that ends without `done` is reported as incomplete."""
    daemon.stream.pop()
    result = llmd(config, "ask", "x")
    assert result.exit_code == 1
    assert "stopped before the answer was complete" in result.stderr


def test_ctrl_c_ends_the_request_and_the_command(config: Path, daemon: FakeDaemon) -> None:
    """SIGINT closes the connection, which cancels the answer, and the exit status is 130."""
    daemon.stalls_after = 2
    with subprocess.Popen(
        [sys.executable, "-m", "llmd", "--config", str(config), "ask", "x"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(5) == b"Paris"
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate()
    assert (process.returncode, rest, errors) == (130, b"\n", b"\n")
    assert daemon.client_gone.wait(10)


def test_an_answer_cannot_control_the_terminal(config: Path) -> None:
    """An escape sequence in an answer is printed as text on a terminal."""
    master, slave = pty.openpty()
    subprocess.run(
        [sys.executable, "-m", "llmd", "--config", str(config), "ask", "x"],
        stdout=slave,
        check=True,
        env=os.environ | {"TERM": "xterm"},
    )
    os.close(slave)
    shown = os.read(master, 4096).decode()
    os.close(master)
    assert shown == "Paris\\u001b[2J.\r\n"
