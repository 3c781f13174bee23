"""`/livez`, `/health` and `/status`."""

from __future__ import annotations

import falcon
import pytest
from falcon import testing

from llmd import __version__
from llmd.api.health import HealthResource
from llmd.chat.embeddings import Embeddings
from llmd.errors import EngineFailed, EngineLoading, LlmdError
from tests.support.fake_engine import FakeEngine, begins
from tests.support.service import Service


def test_a_living_daemon_answers_in_every_state(service: Service) -> None:
    """`/livez` answers in every state, because a supervisor must not restart a loading daemon."""
    service.engine.not_ready = EngineFailed("no model")
    service.admission.drain()
    result = service.ask("GET", "/livez", key="")
    assert (result.status_code, result.json) == (200, {"status": "alive"})


def test_a_daemon_that_could_answer_is_healthy(service: Service) -> None:
    """A daemon with a loaded model is healthy, and names the model."""
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
    """A daemon without a loaded model answers 503 with state, reason, `Retry-After` and error."""
    service.engine.not_ready = error
    result = service.ask("GET", "/health", key="")
    assert service.code(result) == (503, code)
    assert (result.json["status"], result.json["reason"]) == (status, error.message)
    assert result.headers["retry-after"] == retry_after


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (EngineLoading("loading (40%)", retry_after_s=2), "loading"),
        (EngineFailed("t5.gguf is an encoder-decoder model", retry_after_s=30), "failed"),
    ],
)
def test_an_embedding_model_that_cannot_serve_is_not_healthy(
    service: Service, error: LlmdError, status: str
) -> None:
    """A daemon whose embedding model cannot serve answers 503 with the reason."""
    embedder = FakeEngine()
    embeddings = Embeddings(service.engine, embedder, service.admission)
    app = falcon.App()
    app.add_route("/health", HealthResource(service.engine, embeddings, service.admission))
    client = testing.TestClient(app)
    assert client.simulate_get("/health").json == {"status": "ok", "model": "tiny.gguf"}
    embedder.not_ready = error
    result = client.simulate_get("/health")
    assert (result.status_code, result.json["status"]) == (503, status)
    assert result.json["reason"] == f"the embedding model: {error.message}"
    assert int(result.headers["retry-after"]) > 0


def test_a_daemon_that_goes_down_is_not_healthy(service: Service) -> None:
    """A draining daemon is not healthy, even if its model could still answer."""
    service.admission.drain()
    result = service.ask("GET", "/health", key="")
    assert service.code(result) == (503, "draining")
    assert result.json["status"] == "draining"
    assert int(result.headers["retry-after"]) > 0


def test_the_status_has_counts_and_selection(service: Service) -> None:
    """The status has the engine's counts, the streams and the selection."""
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


def test_the_status_counts_the_active_streams(service: Service) -> None:
    """The status counts an admitted request as an active stream until its end."""
    ticket = service.admission.enter("x", None, lambda: False)
    assert service.ask("GET", "/status").json["streams"]["active"] == 1
    ticket.release()
    assert service.ask("GET", "/status").json["streams"]["active"] == 0


def test_the_status_of_a_daemon_without_a_model_has_nulls(service: Service) -> None:
    """The status of a daemon without a model has null for unknown values."""
    service.engine.name = None
    service.engine.start_without("no model was chosen")
    status = service.ask("GET", "/status").json
    assert (status["state"], status["reason"]) == ("failed", "no model was chosen")
    assert status["model"] is None
    assert status["context_tokens"] is None
    assert status["sequences"]["max"] is None


def test_the_status_of_a_draining_daemon_is_draining(service: Service) -> None:
    """The status of a draining daemon is `draining`, whatever the state of the engine."""
    service.admission.drain()
    assert service.ask("GET", "/status").json["state"] == "draining"


def test_the_status_is_answered_without_the_store(service: Service) -> None:
    """The status is answered even if the database is broken."""
    assert service.ask("GET", "/auth").status_code == 200
    with service.db.write() as tx:
        tx.exec_driver_sql("DROP TABLE settings")
    status = service.ask("GET", "/status").json
    assert (status["state"], status["profile"], status["sessions"]) == ("ready", None, None)
