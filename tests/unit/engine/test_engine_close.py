"""Closing the engine: no worker process outlives it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmd import config
from llmd.engine.engine import Engine
from llmd.errors import (
    EngineFailed,
    ModelInvalid,
)
from tests.support.engine_requests import ask, commit_nothing, load_in_background, serve
from tests.support.supervisors import FAKE_WORKER, SETTINGS, is_alive, make_model, read_delta


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Provide an engine without a model, and close it afterwards."""
    engine = Engine(SETTINGS, config.Cache(), FAKE_WORKER)
    yield engine
    engine.close()


def _serving(engine: Engine, folder: Path) -> list[int]:
    return [serve(engine, make_model(folder))]


def _changing_over(engine: Engine, folder: Path) -> list[int]:
    """Have one worker finish an answer while another one serves."""
    old_pid = serve(engine, make_model(folder, "a.gguf"))
    read_delta(ask(engine, "wait here"))
    return [old_pid, serve(engine, make_model(folder, "b.gguf"))]


@pytest.mark.parametrize("prepare", [_serving, _changing_over])
def test_close_ends_every_process(
    engine: Engine, tmp_path: Path, prepare: Callable[[Engine, Path], list[int]]
) -> None:
    """Closing stops the current worker, and an old one that still has a request."""
    pids = prepare(engine, tmp_path)
    assert all(is_alive(pid) for pid in pids)
    engine.close()
    engine.close()
    assert not any(is_alive(pid) for pid in pids)
    with pytest.raises(EngineFailed):
        ask(engine, "say hello")
    with pytest.raises(EngineFailed, match="going down"):
        engine.switch(make_model(tmp_path, "c.gguf"), commit_nothing)
    engine.start(make_model(tmp_path, "c.gguf"))
    assert engine.model != "c.gguf"


def test_close_ends_a_model_that_is_being_loaded(engine: Engine, tmp_path: Path) -> None:
    """A switch in progress fails, and its process ends."""
    switch = load_in_background(engine, make_model(tmp_path, how="hang"))
    assert engine._loading is not None
    assert engine._loading._process is not None
    pid = engine._loading._process.pid
    engine.close()
    switch.join()
    assert isinstance(switch.error, ModelInvalid)
    assert not is_alive(pid)
