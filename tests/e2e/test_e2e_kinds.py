"""Models that generate no text, as the model that answers and for embeddings."""

from __future__ import annotations

import pytest

from tests.e2e.client import Client
from tests.e2e.daemon import Daemon, Starter
from tests.e2e.waiting import until
from tests.support.made_model import MadeModels

pytestmark = pytest.mark.e2e

EMBEDDING = ("bert", "nomic-bert", "gemma-embedding", "t5encoder")
USELESS = {
    "bert-reranker": "reranker",
    "qwen3-reranker": "reranker",
    "t5": "encoder-decoder",
    "adapter": "adapter",
    "projector": "projector",
}
KINDS = dict.fromkeys(EMBEDDING, "encoder") | USELESS


def test_only_what_generates_text_answers(start_daemon: Starter, made_models: MadeModels) -> None:
    """Every other kind is listed, but 422 before it is loaded: the same worker still serves."""
    daemon = start_daemon()
    worker = daemon.worker_pid()
    for kind in KINDS:
        (daemon.models / f"{kind}.gguf").symlink_to(made_models(kind))
    listed = daemon.client.get("/models").body["kinds"]
    assert listed == {"a.gguf": "decoder"} | {f"{name}.gguf": KINDS[name] for name in KINDS}
    for name, kind in KINDS.items():
        reply = daemon.client.call("POST", "/models/model", {"model": f"{name}.gguf"})
        assert (reply.status, reply.code) == (422, "model_invalid")
        assert reply.body["message"].startswith(f"{name}.gguf is a")
        assert kind in reply.body["message"]
    assert daemon.worker_pid() == worker
    assert daemon.client.get("/status").body["restarts"] == 0
    for name in USELESS:
        daemon.run("model", "add", str(made_models(name)), "--name", "x.gguf", code=1)


@pytest.mark.parametrize("name", EMBEDDING)
def test_an_encoder_makes_embeddings(
    name: str, start_daemon: Starter, made_models: MadeModels
) -> None:
    """An encoder is the embedding model beside a model that answers."""
    daemon = _with_embedding(start_daemon, made_models, name)
    daemon.wait_healthy()
    body = {"input": ["Say hello.", "Tell me a story."]}
    vectors = [one["embedding"] for one in _embed(daemon, body)]
    assert vectors[0] != vectors[1]
    assert all(abs(sum(x * x for x in vector) - 1) < 1e-4 for vector in vectors)


@pytest.mark.parametrize("name", ["t5", "bert-reranker"])
def test_what_makes_no_embeddings_is_not_healthy(
    name: str, start_daemon: Starter, made_models: MadeModels
) -> None:
    """`/health` says why the embedding model cannot serve, while the other model answers."""
    daemon = _with_embedding(start_daemon, made_models, name)
    client = Client(daemon.port, None)
    until(lambda: _answers(daemon), "the other model answers")
    health = client.get("/health")
    assert (health.status, health.body["status"]) == (503, "failed")
    assert f"the embedding model: {name}.gguf is a" in health.body["reason"]
    reply = daemon.client.call("POST", "/v1/embeddings", {"input": "x"})
    assert (reply.status, reply.code) == (503, "engine_failed")
    assert f"{name}.gguf" in reply.body["error"]["message"]
    daemon.worker_pid()


@pytest.mark.parametrize("name", ["bert", "t5", "qwen3-reranker"])
def test_a_default_that_generates_nothing_is_not_loaded(
    name: str, start_daemon: Starter, made_models: MadeModels
) -> None:
    """`[models] default` of another kind is the reason why there is no model; no worker starts."""
    daemon = start_daemon(begin=False, models={"default": f"{name}.gguf"})
    (daemon.models / f"{name}.gguf").symlink_to(made_models(name))
    daemon.start(wait=False)
    client = Client(daemon.port, None)

    def is_failed() -> bool:
        try:
            return bool(client.get("/health").body["status"] == "failed")
        except OSError:
            return False

    until(is_failed, "/health says so")
    assert f"{name}.gguf is a" in client.get("/health").body["reason"]
    reply = daemon.client.call("POST", "/answer", {"prompt": "hi"})
    assert (reply.status, reply.code) == (503, "engine_failed")
    assert daemon.worker_pids() == []


def _with_embedding(start: Starter, made_models: MadeModels, name: str) -> Daemon:
    """Return a daemon that was started with an embedding model."""
    daemon = start(begin=False, models={"embedding": f"{name}.gguf"})
    (daemon.models / f"{name}.gguf").symlink_to(made_models(name))
    daemon.start(wait=False)
    return daemon


def _embed(daemon: Daemon, body: dict[str, list[str]]) -> list[dict[str, list[float]]]:
    reply = daemon.client.call("POST", "/v1/embeddings", body)
    assert reply.status == 200, reply
    data: list[dict[str, list[float]]] = reply.body["data"]
    return data


def _answers(daemon: Daemon) -> bool:
    try:
        reply = daemon.client.call("POST", "/answer", {"prompt": "hi", "max_tokens": 2})
    except OSError:
        return False
    return reply.status == 200
