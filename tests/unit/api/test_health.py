"""`/livez`, `/health` and `/status`."""

from __future__ import annotations

import pytest

from llmd import __version__
from llmd.errors import EngineFailed, EngineLoading, LlmdError
from tests.support.fake_engine import begins
from tests.support.service import Service


def test_a_living_daemon_says_so_in_every_state(service: Service) -> None:
    """Without a key; whoever restarts what does not live must not restart what loads."""
    service.engine.not_ready = EngineFailed("no model")
    service.admission.drain()
    result = service.ask("GET", "/livez", key="")
    assert (result.status_code, result.json) == (200, {"status": "alive"})


def test_a_daemon_that_could_answer_is_healthy(service: Service) -> None:
    """With the model's name."""
    result = service.ask("GET", "/health", key="")
    assert (result.status_code, result.json) == (200, {"status": "ok", "model": "tiny.gguf"})


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (EngineLoading("loading (40%)", retry_after_s=2), "loading", "model_loading", "2"),
        (EngineFailed("three deaths", retry_after_s=30), "failed", "engine_failed", "30"),
    ],
)
def test_a_daemon_that_could_not_answer_says_why(
    service: Service, error: LlmdError, status: str, code: str, retry_after: str
) -> None:
    """503 with the state, the reason, a time to come back, and the body of every error."""
    service.engine.not_ready = error
    result = service.ask("GET", "/health", key="")
    assert service.code(result) == (503, code)
    assert (result.json["status"], result.json["reason"]) == (status, error.message)
    assert result.headers["retry-after"] == retry_after


def test_a_daemon_that_goes_down_is_not_healthy(service: Service) -> None:
    """Also while its model could still answer: a balancer must look elsewhere."""
    service.admission.drain()
    result = service.ask("GET", "/health", key="")
    assert service.code(result) == (503, "draining")
    assert result.json["status"] == "draining"
    assert int(result.headers["retry-after"]) > 0


def test_the_status_tells_what_the_daemon_is_doing(service: Service) -> None:
    """The engine's counts, the places, and the selection."""
    service.ask("POST", "/answer", {"prompt": "hi", "session_id": 1})
    service.engine.script = begins()
    status = service.ask("GET", "/status").json
    assert status.pop("uptime_s") >= 0
    assert status == {
        "version": __version__,
        "state": "ready",
        "reason": "",
        "progress": 1.0,
        "model": "tiny.gguf",
        "profile": "default",
        "context_tokens": 4096,
        "cpu_variant": "x64",
        "threads": 2,
        "sequences": {"running": 1, "waiting": 0, "max": 8},
        "streams": {"active": 0, "queued": 0, "max": 2, "max_queue": 2},
        "tokens": {"prompt": 11, "cached": 4, "completion": 2, "drafted": 0, "accepted": 0},
        "tokens_per_s": 12.3,
        "restarts": 0,
        "sessions": 1,
    }


def test_the_status_counts_the_streams_of_this_moment(service: Service) -> None:
    """An answer that is being made holds a place."""
    ticket = service.admission.enter("x", None, lambda: False)
    assert service.ask("GET", "/status").json["streams"]["active"] == 1
    ticket.release()
    assert service.ask("GET", "/status").json["streams"]["active"] == 0


def test_the_status_of_a_daemon_without_a_model_has_nulls(service: Service) -> None:
    """What is not known is null, not left out."""
    service.engine.name = None
    service.engine.start_without("no model was chosen")
    status = service.ask("GET", "/status").json
    assert (status["state"], status["reason"]) == ("failed", "no model was chosen")
    assert status["model"] is None
    assert status["context_tokens"] is None
    assert status["sequences"]["max"] is None


def test_the_status_says_that_the_daemon_goes_down(service: Service) -> None:
    """Whatever the engine's own state is."""
    service.admission.drain()
    assert service.ask("GET", "/status").json["state"] == "draining"


def test_the_status_is_told_without_the_store_too(service: Service) -> None:
    """What the engine does is worth knowing while the database is broken."""
    assert service.ask("GET", "/auth").status_code == 200
    with service.db.write() as tx:
        tx.exec_driver_sql("DROP TABLE settings")
    status = service.ask("GET", "/status").json
    assert (status["state"], status["profile"], status["sessions"]) == ("ready", None, None)
