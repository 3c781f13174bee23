"""Tiny models of many architectures can be made, and generate text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon
from tests.support.made_model import GENERATING, MadeModels, made_model

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def made_daemon(
    made_models: MadeModels, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Daemon]]:
    """Return a function that makes the daemon answer with a made model."""
    folder = tmp_path_factory.mktemp("daemon")
    daemon = Daemon(folder, made_models("llama"), {"engine": {"context": 1024, "parallel": 2}})
    daemon.start()

    def switch(kind: str) -> Daemon:
        file = daemon.models / f"{kind}.gguf"
        if not file.exists():
            file.symlink_to(made_models(kind))
        reply = daemon.client.call("POST", "/models/model", {"model": file.name})
        assert reply.status == 200, reply
        return daemon

    yield switch
    daemon.close()


@pytest.mark.parametrize("kind", GENERATING)
def test_made_models_answer(kind: str, made_daemon: Callable[[str], Daemon]) -> None:
    """Greedy answers are printable, as long as asked for, and other for other questions."""
    client = made_daemon(kind).client
    options = {"temperature": 0, "max_tokens": 40}
    questions = ("Say hello.", "Tell me a story about the sea.")
    answers = [client.ask(question, **options) for question in questions]
    texts = [answer["result"] for answer in answers]
    assert texts[0] != texts[1]
    assert all(text.isascii() and text.isprintable() for text in texts)
    assert [answer["usage"]["completion_tokens"] for answer in answers] == [40, 40]


def test_a_model_is_made_by_its_seed(made_models: MadeModels, tmp_path: Path) -> None:
    """The same seed gives the same bytes, another one others."""
    first = made_models("llama").read_bytes()
    assert made_model("llama", tmp_path).read_bytes() == first
    assert made_model("llama", tmp_path, seed=2).read_bytes() != first
