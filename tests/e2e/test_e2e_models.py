"""Switch between models, and refuse files that are not models, while one is in use."""

from __future__ import annotations

import mmap
import shutil
from pathlib import Path

import pytest

from tests.e2e.client import Client
from tests.e2e.daemon import Daemon, Starter
from tests.e2e.waiting import until

pytestmark = pytest.mark.e2e

STORY = "Write a long story about a lighthouse keeper and the sea."


def _select(daemon: Daemon, **body: str) -> tuple[int, object]:
    reply = daemon.client.call("POST", "/models/model", body)
    return reply.status, reply.body.get("model_status") or reply.code


def _model(daemon: Daemon) -> object:
    return Client(daemon.port, None).get("/health").body["model"]


def test_a_switch_lets_running_streams_finish(start_daemon: Starter, model_file: Path) -> None:
    """A stream completes on the old model while the new one answers; a restart keeps the new."""
    # The short model would finish the stream before another one is loaded.
    daemon = start_daemon(model_file)
    (daemon.models / "b.gguf").symlink_to(model_file)
    daemon.put_profile("brief", max_tokens=2)
    with daemon.client.stream(STORY, temperature=0, max_tokens=300, stop=["~~"]) as stream:
        stream.next("token")
        old = daemon.worker_pid()
        assert _select(daemon, model="b.gguf", model_config="brief") == (200, True)
        # Both workers run: the old one for the stream, the new one for other requests.
        assert old in daemon.worker_pids()
        answer = daemon.client.ask("Say hello.")
        assert (answer["model"], answer["profile"]) == ("b.gguf", "brief")
        assert answer["usage"]["completion_tokens"] == 2
        assert old in daemon.worker_pids()
        *tokens, done = stream.rest()
    assert len(tokens) > 100
    assert done.name == "done"
    assert (done.data["model"], done.data["profile"]) == ("a.gguf", "default")
    assert done.data["finish_reason"] in {"length", "stop"}
    until(lambda: old not in daemon.worker_pids(), "the old worker ends with its last stream")
    assert daemon.stop() == 0
    daemon.start()
    assert _model(daemon) == "b.gguf"
    assert daemon.client.ask("Say hello.")["profile"] == "brief"


def test_a_refused_selection_changes_nothing(start_daemon: Starter, model_file: Path) -> None:
    """Unknown names get 404, files that are not models 422, and the old model stays."""
    daemon = start_daemon()
    with model_file.open("rb") as file:
        (daemon.models / "cut.gguf").write_bytes(file.read(20_000_000))
        file.seek(0)
        (daemon.models / "head.gguf").write_bytes(file.read(1000))
    (daemon.models / "text.gguf").write_text("This is not a model.\n" * 100)
    (daemon.models / "empty.gguf").write_bytes(b"")
    (daemon.models / "nowhere.gguf").symlink_to("/nonexistent/model.gguf")
    (daemon.models / "folder.gguf").mkdir()
    worker = daemon.worker_pid()
    expected = {
        "cut.gguf": (422, "model_invalid"),
        "head.gguf": (422, "model_invalid"),
        "text.gguf": (422, "model_invalid"),
        "empty.gguf": (422, "model_invalid"),
        "nowhere.gguf": (404, "model_not_found"),
        "folder.gguf": (404, "model_not_found"),
        "c.gguf": (404, "model_not_found"),
        "../models/a.gguf": (404, "model_not_found"),
        str(model_file): (404, "model_not_found"),
    }
    assert {name: _select(daemon, model=name) for name in expected} == expected
    assert _select(daemon, model_config="nobody") == (404, "profile_not_found")
    assert _select(daemon, model="a.gguf", model_config="nobody") == (404, "profile_not_found")
    assert _model(daemon) == "a.gguf"
    assert daemon.worker_pid() == worker
    assert daemon.client.ask("Say hello.", max_tokens=2)["profile"] == "default"
    assert daemon.client.get("/status").body["restarts"] == 0


def test_a_model_that_the_engine_refuses_leaves_the_old_one(
    start_daemon: Starter, model_file: Path
) -> None:
    """A file with a valid header but an unknown architecture gets 422 after the load fails."""
    daemon = start_daemon()
    strange = daemon.models / "strange.gguf"
    shutil.copyfile(model_file, strange)
    with strange.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        at = content.find(b"general.architecture")
        at = content.find(b"llama", at)
        content[at : at + 5] = b"lemma"
    worker = daemon.worker_pid()
    assert _select(daemon, model="strange.gguf") == (422, "model_invalid")
    strange.unlink()
    assert daemon.worker_pid() == worker
    assert _model(daemon) == "a.gguf"
    assert daemon.client.ask("Say hello.", max_tokens=2)["model"] == "a.gguf"


def test_only_an_admin_selects(daemon: Daemon) -> None:
    """A user's key can list the models but not select one."""
    user = daemon.user()
    assert user.get("/models").body["models"] == ["a.gguf"]
    reply = user.call("POST", "/models/model", {"model": "a.gguf"})
    assert (reply.status, reply.code) == (403, "forbidden")
