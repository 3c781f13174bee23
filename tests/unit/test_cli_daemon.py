"""`llmd ask` and `llmd status` against a small server that speaks the daemon's API."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from llmd.cli.main import cli

RESULT = {
    "result": "Paris\x1b[2J.",
    "session_id": None,
    "profile": "default",
    "model": "m.gguf",
    "usage": {
        "prompt_tokens": 31,
        "completion_tokens": 12,
        "total_tokens": 43,
        "prompt_tokens_details": {"cached_tokens": 7},
    },
    "finish_reason": "stop",
    "turns_in_prompt": 0,
    "seed": 5,
    "timings": {"queue_ms": 10, "prefill_ms": 250, "decode_ms": 500},
}
STATUS = {
    "version": "9.9",
    "uptime_s": 93_784,
    "state": "ready",
    "reason": None,
    "progress": 1.0,
    "model": "m.gguf",
    "profile": "default",
    "context_tokens": 4096,
    "cpu_variant": "haswell",
    "threads": 4,
    "sequences": {"running": 2, "waiting": 1, "max": 8},
    "streams": {"active": 2, "queued": 0, "max": 8, "max_queue": 64},
    "tokens_per_s": 17.25,
    "restarts": 0,
    "sessions": 3,
}


def error(message: str, code: str) -> dict[str, Any]:
    """Return the one error body."""
    fields = {"message": message, "type": "t", "param": None, "code": code}
    return {"error": fields, "message": message}


def event(name: str, data: object) -> str:
    """Return one server-sent event."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


class FakeDaemon(ThreadingHTTPServer):
    """Answer with what the test has put here, and remember what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        tokens = [event("token", {"text": text}) for text in ("Paris", "\x1b[2J", ".")]
        self.stream = [": ping\n\n", *tokens, event("done", RESULT)]
        self.stalls_after: int | None = None
        self.client_gone = threading.Event()
        self.broken: list[str] = []
        self.answer: tuple[int, object] = (200, RESULT)
        self.health: tuple[int, object] = (200, {"status": "ok", "model": "m.gguf"})
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []

    def handle_error(self, *args: Any) -> None:
        """Note a connection that broke, instead of printing a trace into the test's output."""
        self.broken.append(repr(sys.exception()))

    @property
    def url(self) -> str:
        """Return the address."""
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeDaemon

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def _send(self, status: int, body: object) -> None:
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self.server.keys.append(self.headers["authorization"])
        answers = {"/health": self.server.health, "/status": (200, STATUS)}
        self._send(*answers.get(self.path, (404, error("no such route", "unknown_route"))))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.keys.append(self.headers["authorization"])
        self.server.asked.append(body)
        if not body.get("stream") or self.server.answer[0] != 200:
            self._send(*self.server.answer)
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for index, text in enumerate(self.server.stream):
            if index == self.server.stalls_after:
                self.connection.recv(1)
                self.server.client_gone.set()
                self.close_connection = True
                return
            self._chunk(text)
        self._chunk("")

    def _chunk(self, text: str) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(text.encode()), text.encode()))


@pytest.fixture
def daemon() -> Iterator[FakeDaemon]:
    """Give a daemon that listens."""
    server = FakeDaemon()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def config(tmp_path: Path, daemon: FakeDaemon) -> Path:
    """Give a configuration of that daemon, with the admin's key beside it."""
    file = tmp_path / "llmd.toml"
    file.write_text(f'[server]\nlisten = ["0.0.0.0:{daemon.server_port}"]\n')
    (tmp_path / "admin.key").write_text("llmd_admin\n")
    return file


def llmd(config: Path, *args: str, env: dict[str, str] | None = None, stdin: str = "") -> Result:
    """Run a command in this process."""
    return CliRunner(env=env).invoke(cli, ["--config", str(config), *args], input=stdin)


def test_an_answer_is_printed_as_it_comes(config: Path, daemon: FakeDaemon) -> None:
    """`ask` streams from the address of the configuration, with the admin's key, to a pipe raw."""
    result = llmd(config, "ask", "Capital of France?")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "Paris\x1b[2J.\n", "")
    assert daemon.asked == [{"prompt": "Capital of France?", "stream": True}]
    assert daemon.keys == ["Bearer llmd_admin"]


def test_a_stream_is_read_to_its_end(config: Path, daemon: FakeDaemon) -> None:
    """The command does not hang up at the last event: the daemon would take it for gone."""
    for _ in range(20):
        assert llmd(config, "ask", "x").exit_code == 0
    assert daemon.broken == []


def test_options_become_fields(config: Path, daemon: FakeDaemon) -> None:
    """Each option of `ask` is the field of the API that has its name."""
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
    """`ask -` reads the question, and leaves out the line break that ends a text file."""
    llmd(config, "ask", "-", stdin="two\nlines\n")
    assert daemon.asked[0]["prompt"] == "two\nlines"


def test_an_empty_question_is_wrong_usage(config: Path, daemon: FakeDaemon) -> None:
    """Nothing is asked when there is no question."""
    assert llmd(config, "ask", "-", stdin="\n").exit_code == 2
    assert daemon.asked == []


def test_an_answer_can_come_whole(config: Path, daemon: FakeDaemon) -> None:
    """`ask --no-stream` makes one plain call."""
    result = llmd(config, "ask", "--no-stream", "x")
    assert result.stdout == "Paris\x1b[2J.\n"
    assert daemon.asked == [{"prompt": "x"}]


@pytest.mark.parametrize("more", [[], ["--no-stream"]])
def test_json_is_the_body_of_the_api(config: Path, more: list[str]) -> None:
    """`ask --json` prints the answer with its usage, and nothing else."""
    assert json.loads(llmd(config, "ask", "x", "--json", *more).stdout) == RESULT


def test_verbose_tells_tokens_and_times_beside_the_answer(config: Path) -> None:
    """`ask -v` writes one line to standard error."""
    result = llmd(config, "ask", "-v", "x")
    assert result.stdout == "Paris\x1b[2J.\n"
    assert "prompt 31 tokens, 7 of them known, read in 0.25 s" in result.stderr
    assert "answer 12 tokens in 0.50 s (24.0 tokens/s)" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_key_of_the_option_goes_before_the_environment(
    config: Path, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """The order is --key-file, LLMD_KEY, LLMD_KEY_FILE, admin.key beside the configuration."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("by_option\n")
    two.write_text("by_file\n")
    both = {"LLMD_KEY": "by_env", "LLMD_KEY_FILE": str(two)}
    llmd(config, "ask", "x", "--key-file", str(one), env=both)
    llmd(config, "ask", "x", env=both)
    llmd(config, "ask", "x", env={"LLMD_KEY_FILE": str(two)})
    assert daemon.keys == ["Bearer by_option", "Bearer by_env", "Bearer by_file"]


def test_without_a_key_it_says_where_one_is_looked_for(
    config: Path, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """`ask` without a key asks nothing."""
    (tmp_path / "admin.key").unlink()
    result = llmd(config, "ask", "x")
    assert result.exit_code == 1
    assert result.stderr.startswith("llmd: cannot ask: there is no key: set LLMD_KEY")
    assert daemon.keys == []


def test_a_key_that_would_break_the_header_is_refused_unseen(config: Path) -> None:
    """A key file with other text is refused without repeating it."""
    result = llmd(config, "ask", "x", env={"LLMD_KEY": "geheim\r\nx-evil: 1"})
    assert result.exit_code == 1
    assert "the key must be one word" in result.stderr
    assert "geheim" not in result.stderr


def test_an_address_can_be_named_without_any_configuration(
    daemon: FakeDaemon, tmp_path: Path
) -> None:
    """A user on another machine needs an address and a key, and no file."""
    missing = tmp_path / "none.toml"
    env = {"LLMD_URL": daemon.url, "LLMD_KEY": "k"}
    assert llmd(missing, "ask", "x", env=env).exit_code == 0
    result = llmd(missing, "ask", "x", "--url", "localhost", env={"LLMD_KEY": "k"})
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the address must look like http://" in result.stderr


def test_a_daemon_that_is_not_there_is_named_with_the_way_to_start_it(
    config: Path, daemon: FakeDaemon
) -> None:
    """Nothing listens: the message has the address and what to do."""
    config.write_text('[server]\nlisten = ["[::]:1"]\n')
    result = llmd(config, "ask", "x")
    assert result.exit_code == 1
    assert "llmd does not answer at http://[::1]:1 (" in result.stderr
    assert "`systemctl start llmd` or `llmd serve`" in result.stderr


def test_the_daemons_words_are_told(config: Path, daemon: FakeDaemon) -> None:
    """An error body's message comes after what could not be done."""
    daemon.answer = (404, error("no profile x: see the list of profiles", "profile_not_found"))
    for more in ([], ["--no-stream"]):
        result = llmd(config, "ask", "x", *more)
        assert result.exit_code == 1
        assert result.stderr == "llmd: cannot ask: no profile x: see the list of profiles\n"


def test_an_error_within_the_stream_comes_after_what_was_said(
    config: Path, daemon: FakeDaemon
) -> None:
    """The words so far stay on a line of their own; the status is 1."""
    daemon.stream[2:] = [event("error", error("the worker died", "engine_died"))]
    result = llmd(config, "ask", "x")
    assert (result.exit_code, result.stdout) == (1, "Paris\n")
    assert result.stderr == "llmd: cannot ask: the worker died\n"


def test_a_stream_without_its_last_event_is_no_answer(config: Path, daemon: FakeDaemon) -> None:
    """What was not acknowledged is not taken for whole."""
    daemon.stream.pop()
    result = llmd(config, "ask", "x")
    assert result.exit_code == 1
    assert "ended before the answer did" in result.stderr


def test_another_server_at_the_address_is_told(config: Path, daemon: FakeDaemon) -> None:
    """A page that is not JSON makes a message, not a trace."""
    daemon.answer = (200, "<html>")
    result = llmd(config, "ask", "--no-stream", "x")
    assert result.exit_code == 1
    assert "answers 200 without JSON: is llmd there?" in result.stderr


def test_ctrl_c_ends_the_request_and_the_command(config: Path, daemon: FakeDaemon) -> None:
    """After SIGINT the connection is closed, which cancels, and the status is 130."""
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


def test_on_a_terminal_an_answer_cannot_steer_it(config: Path) -> None:
    """An escape sequence of the model is shown as text to a person."""
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


def test_status_shows_model_and_load(config: Path) -> None:
    """`status` prints a name and a value a line, and ends with 0 when ready."""
    result = llmd(config, "status")
    assert result.exit_code == 0, result.stderr
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert lines["state"] == "ready"
    assert lines["model"] == "m.gguf"
    assert lines["sequences"] == "2 of 8 running, 1 waiting"
    assert lines["uptime"] == "1 d 2 h"


def test_status_as_json_says_whether_it_is_ready(config: Path, daemon: FakeDaemon) -> None:
    """`status --json` is the API's object with the address and the health."""
    shown = json.loads(llmd(config, "status", "--json").stdout)
    assert shown == {"url": daemon.url, "ready": True, **STATUS}


def test_status_fails_while_the_daemon_is_not_ready(config: Path, daemon: FakeDaemon) -> None:
    """A daemon that loads its model makes status 1, with the reason on standard error."""
    daemon.health = (503, {"status": "loading", "reason": "the model is loading"})
    result = llmd(config, "status")
    assert result.exit_code == 1
    assert result.stderr == "llmd: not ready: the model is loading\n"
    shown = llmd(config, "status", "--json")
    assert (shown.exit_code, json.loads(shown.stdout)["ready"]) == (1, False)


def test_status_without_a_key_shows_the_health(
    config: Path, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """What needs no key is told to everybody."""
    (tmp_path / "admin.key").unlink()
    result = llmd(config, "status")
    assert result.exit_code == 0
    assert "m.gguf" in result.stdout
    assert daemon.keys == [None]


def test_status_fails_when_nothing_is_there(config: Path) -> None:
    """A daemon that cannot be reached makes status 1."""
    result = llmd(config, "status", "--url", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert "llmd: cannot tell the status: llmd does not answer at" in result.stderr
