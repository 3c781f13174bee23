"""`llmd model`, with and without a running daemon."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from llmd.store.db import Database
from llmd.store.settings import Selection, Settings
from tests.support.command_line import llmd, write_config
from tests.support.gguf_file import ENCODER, PROJECTOR, build


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Provide a model file outside of the library."""
    file = tmp_path / "tiny.gguf"
    file.write_bytes(build())
    return file


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Provide a configuration after `llmd init`, without a running daemon."""
    file = write_config(tmp_path)
    assert llmd(file, "init", "--key-file", str(tmp_path / "admin.key")).exit_code == 0
    return file


def selection(config: Path) -> Selection:
    """Return the model and the profile that the database has as selected."""
    db = Database(f"sqlite:///{config.parent}/llmd.db")
    try:
        return Settings(db).selection()
    finally:
        db.close()


class FakeDaemon(HTTPServer):
    """A daemon that loads every model except `missing.gguf`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str | None, dict[str, Any]]] = []


class Handler(BaseHTTPRequestHandler):
    server: FakeDaemon

    def log_message(self, *args: Any) -> None:
        """Log nothing."""

    def _send(self, status: int, body: object) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def do_GET(self) -> None:
        self._send(200, {"status": "alive"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((self.headers["authorization"], body))
        if body.get("model") == "missing.gguf":
            self._send(404, {"error": {"message": "there is no model", "code": "x"}})
        else:
            chosen = {"model": body.get("model", "loaded.gguf"), "profile": "default"}
            self._send(200, {"model_status": True, **chosen})


@pytest.fixture
def daemon(config: Path) -> Iterator[FakeDaemon]:
    """Provide a daemon at the address in the configuration."""
    server = FakeDaemon()
    write_config(config.parent, port=server.server_port)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_model_is_added_listed_shown_and_removed(config: Path, model: Path) -> None:
    """A model can be added under a name or as a link, listed, shown and removed."""
    assert llmd(config, "model", "add", str(model), "--name", "a.gguf").exit_code == 0
    assert llmd(config, "model", "add", str(model), "--link").exit_code == 0
    listed = json.loads(llmd(config, "model", "list", "--json").stdout)["models"]
    assert [one["name"] for one in listed] == ["a.gguf", "tiny.gguf"]
    assert (config.parent / "models/tiny.gguf").is_symlink()
    shown = json.loads(llmd(config, "model", "show", "a.gguf", "--json").stdout)
    assert (shown["architecture"], shown["num_context_tokens"]) == ("llama", 2048)
    assert "context        2048 tokens\n" in llmd(config, "model", "show", "a.gguf").stdout
    assert llmd(config, "model", "remove", "tiny.gguf").exit_code == 0
    assert model.exists()
    assert llmd(config, "model", "list").stdout.splitlines()[1].startswith("a.gguf")


def test_an_empty_list_says_how_to_add_a_model(config: Path) -> None:
    """`model list` without models succeeds and names `llmd model add`."""
    result = llmd(config, "model", "list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "`llmd model add FILE`" in result.stderr


def test_a_file_that_is_not_a_model_is_not_added(config: Path) -> None:
    """`model add` checks the file before it copies it."""
    result = llmd(config, "model", "add", str(config), "--name", "x.gguf")
    assert result.exit_code == 1
    assert result.stderr.startswith("llmd: cannot add the model: ")
    assert json.loads(llmd(config, "model", "list", "--json").stdout) == {"models": []}


def test_without_a_daemon_the_choice_is_stored(config: Path, model: Path) -> None:
    """`model use` checks the file and stores the selection for the next start."""
    llmd(config, "model", "add", str(model))
    result = llmd(config, "model", "use", "tiny.gguf")
    assert result.exit_code == 0, result.stderr
    assert "from the next start on" in result.stderr
    assert selection(config) == Selection(model="tiny.gguf", profile="default")


def test_without_a_daemon_a_profile_selects_its_model_too(config: Path, model: Path) -> None:
    """`model use --profile` selects the profile and the model that it names."""
    llmd(config, "model", "add", str(model))
    llmd(config, "profile", "set", "p", "model=tiny.gguf")
    assert llmd(config, "model", "use", "--profile", "p").exit_code == 0
    assert selection(config) == Selection(model="tiny.gguf", profile="p")


@pytest.mark.parametrize("args", [["missing.gguf"], ["tiny.gguf", "--profile", "missing"]])
def test_a_missing_model_or_profile_is_not_selected(
    config: Path, model: Path, args: list[str]
) -> None:
    """An unknown model or profile leaves the selection unchanged."""
    llmd(config, "model", "add", str(model))
    result = llmd(config, "model", "use", *args)
    assert result.exit_code == 1
    assert result.stderr.startswith("llmd: cannot use the model: ")
    assert selection(config) == Selection()


def test_the_selected_model_is_not_removed(config: Path, model: Path) -> None:
    """`model remove` refuses to remove the file that the next start needs."""
    llmd(config, "model", "add", str(model))
    llmd(config, "model", "use", "tiny.gguf")
    result = llmd(config, "model", "remove", "tiny.gguf")
    assert result.exit_code == 1
    assert "tiny.gguf is selected" in result.stderr
    assert (config.parent / "models/tiny.gguf").exists()


def test_a_running_daemon_makes_the_selection(config: Path, daemon: FakeDaemon) -> None:
    """`model use` calls a running daemon with the admin's key and leaves the database to it."""
    shown = json.loads(llmd(config, "model", "use", "m.gguf", "--profile", "p", "--json").stdout)
    assert shown == {"model": "m.gguf", "profile": "default", "serving": True}
    assert llmd(config, "model", "use", "--profile", "q").exit_code == 0
    key = (config.parent / "admin.key").read_text().strip()
    assert daemon.asked == [
        (f"Bearer {key}", {"model": "m.gguf", "model_config": "p"}),
        (f"Bearer {key}", {"model_config": "q"}),
    ]
    assert selection(config) == Selection()


def test_the_daemons_refusal_is_shown(config: Path, daemon: FakeDaemon) -> None:
    """If the daemon refuses, its message is printed and nothing is stored."""
    result = llmd(config, "model", "use", "missing.gguf")
    assert result.exit_code == 1
    assert result.stderr == "llmd: cannot use the model: there is no model\n"
    assert selection(config) == Selection()


def test_a_running_daemon_needs_a_key(config: Path, daemon: FakeDaemon) -> None:
    """Without a key, `model use` does not change the database of a running daemon."""
    (config.parent / "admin.key").unlink()
    result = llmd(config, "model", "use", "m.gguf")
    assert result.exit_code == 1
    assert "so an admin key is needed" in result.stderr
    assert daemon.asked == []


def test_the_choice_for_another_machine_is_not_stored_here(config: Path, model: Path) -> None:
    """With --url, nothing is stored in this database if nothing answers there."""
    llmd(config, "model", "add", str(model))
    result = llmd(config, "model", "use", "tiny.gguf", "--url", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert selection(config) == Selection()


def test_use_without_a_name_is_wrong_usage(config: Path) -> None:
    """`model use` needs a model or a profile."""
    assert llmd(config, "model", "use").exit_code == 2


def test_an_encoder_is_added_but_not_used(config: Path, tmp_path: Path) -> None:
    """An encoder is added with its kind and its use, listed and shown, but not served."""
    file = tmp_path / "bert.gguf"
    file.write_bytes(ENCODER)
    added = llmd(config, "model", "add", str(file))
    assert added.exit_code == 0
    assert "(encoder)" in added.stderr
    assert '[models] embedding = "bert.gguf"' in added.stderr
    [listed] = json.loads(llmd(config, "model", "list", "--json").stdout)["models"]
    assert listed["kind"] == "encoder"
    assert "encoder" in llmd(config, "model", "list").stdout
    assert json.loads(llmd(config, "model", "show", "bert.gguf", "--json").stdout)["kind"] == (
        "encoder"
    )
    used = llmd(config, "model", "use", "bert.gguf")
    assert used.exit_code != 0
    assert "bert.gguf is an encoder" in used.stderr
    profile = llmd(config, "profile", "set", "p", "model=bert.gguf")
    assert profile.exit_code != 0
    assert "bert.gguf is an encoder" in profile.stderr
    assert selection(config).model is None


def test_a_projector_is_not_added(config: Path, tmp_path: Path) -> None:
    """What llmd has no use for is refused by its kind."""
    file = tmp_path / "eye.gguf"
    file.write_bytes(PROJECTOR)
    refused = llmd(config, "model", "add", str(file))
    assert refused.exit_code != 0
    assert "eye.gguf is a projector" in refused.stderr
