"""The engine: loading the first model, and switching to another one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmd import config
from llmd.engine.engine import Engine
from llmd.engine.generation import Generation
from llmd.engine.model import State
from llmd.errors import (
    Conflict,
    EngineDied,
    EngineFailed,
    EngineLoading,
    ModelInvalid,
    StoreUnavailable,
)
from tests.support.engine_requests import Switch, ask, commit_nothing, load_in_background, serve
from tests.support.fake_backend import wait_until
from tests.support.supervisors import (
    FAKE_WORKER,
    SETTINGS,
    is_alive,
    make_model,
    read_delta,
    read_done,
)


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Provide an engine without a model, and close it afterwards."""
    engine = Engine(SETTINGS, config.Cache(), FAKE_WORKER)
    yield engine
    engine.close()


def test_engine_without_a_model_says_why(engine: Engine) -> None:
    """Without a model, requests are refused with the reason, which is in the status too."""
    engine.start_without("no-such.gguf is not in the models folder")
    assert engine.model is None
    for call in (engine.check_ready, lambda: ask(engine, "say hello")):
        with pytest.raises(EngineFailed, match="not in the models folder"):
            call()
    status = engine.status()
    assert (status.state, status.model) == ("failed", None)
    assert status.reason == "no-such.gguf is not in the models folder"
    engine.forget("ann")


def test_first_model_is_loaded_while_the_daemon_goes_on(engine: Engine, tmp_path: Path) -> None:
    """`start` returns at once, and requests are refused while the model is loading."""
    engine.start(make_model(tmp_path, how="hang"))
    assert engine.model == "a.gguf"
    wait_until(lambda: engine.status().progress > 0)
    assert engine.status().state == "loading"
    with pytest.raises(EngineLoading):
        ask(engine, "say hello")


def test_status_tells_what_serves_and_how_much(engine: Engine, tmp_path: Path) -> None:
    """The numbers in the status come from the last beat of the worker."""
    serve(engine, make_model(tmp_path))
    engine.check_ready()
    status = engine.status()
    assert (status.state, status.reason, status.model) == ("ready", "", "a.gguf")
    assert status.info is not None
    assert status.info.max_sequences == 4
    assert (status.num_running, status.num_waiting) == (1, 0)
    assert (status.num_prompt_tokens, status.num_cached_tokens) == (10, 5)
    assert status.num_completion_tokens == 20
    assert status.num_restarts == 0


def test_switch_changes_over_when_the_new_model_serves(engine: Engine, tmp_path: Path) -> None:
    """After a switch the choice is committed, the new model answers and the old process ends."""
    old_pid = serve(engine, make_model(tmp_path, "a.gguf"))
    switch = Switch(engine, make_model(tmp_path, "b.gguf"))
    switch.join()
    assert switch.error is None
    assert switch.num_commits == 1
    assert engine.model == "b.gguf"
    assert ask(engine, "say hello").model == "b.gguf"
    wait_until(lambda: not is_alive(old_pid))


def test_model_that_cannot_be_loaded_leaves_the_old_one_serving(
    engine: Engine, tmp_path: Path
) -> None:
    """If the new model cannot be loaded, nothing is committed and the old model still serves."""
    pid = serve(engine, make_model(tmp_path, "a.gguf"))
    for how, reason in [("refuse", "not a model that runs here"), ("die", "last words")]:
        switch = Switch(engine, make_model(tmp_path, "b.gguf", how))
        switch.join()
        assert isinstance(switch.error, ModelInvalid)
        assert switch.error.message.startswith("b.gguf could not be loaded: ")
        assert reason in switch.error.message
        assert switch.num_commits == 0
    assert engine.model == "a.gguf"
    assert read_done(ask(engine, "say pid")) == (str(pid), "stop")


def test_model_that_this_machine_cannot_load_is_not_called_broken(
    engine: Engine, tmp_path: Path
) -> None:
    """If the machine lacks memory for a model, the model is not reported as invalid."""
    pid = serve(engine, make_model(tmp_path, "a.gguf"))
    with pytest.raises(EngineFailed, match=r"b\.gguf could not be loaded: no memory for that"):
        engine.switch(make_model(tmp_path, "b.gguf", "lack memory"), commit_nothing)
    assert read_done(ask(engine, "say pid")) == (str(pid), "stop")


def test_choice_that_cannot_be_noted_leaves_the_old_model_serving(
    engine: Engine, tmp_path: Path
) -> None:
    """If the choice cannot be committed, the error is raised and the new worker ends."""
    pid = serve(engine, make_model(tmp_path, "a.gguf"))
    new_pids: list[int] = []

    def refuse() -> None:
        assert engine._loading is not None
        assert engine._loading._process is not None
        new_pids.append(engine._loading._process.pid)
        raise StoreUnavailable("read-only")

    with pytest.raises(StoreUnavailable):
        engine.switch(make_model(tmp_path, "b.gguf"), refuse)
    assert not is_alive(new_pids[0])
    assert read_done(ask(engine, "say pid")) == (str(pid), "stop")
    assert serve(engine, make_model(tmp_path, "b.gguf")) != pid


def test_request_that_runs_finishes_on_the_old_model(engine: Engine, tmp_path: Path) -> None:
    """The old worker runs until its last answer has ended."""
    pid = serve(engine, make_model(tmp_path, "a.gguf"))
    generation = ask(engine, f"until {tmp_path / 'go'}")
    read_delta(generation)
    assert serve(engine, make_model(tmp_path, "b.gguf")) != pid
    assert is_alive(pid)
    (tmp_path / "go").touch()
    assert read_done(generation) == ("", "stop")
    wait_until(lambda: not is_alive(pid))


def test_second_switch_at_once_is_a_conflict(engine: Engine, tmp_path: Path) -> None:
    """A second switch is refused with the name of the model that is being loaded."""
    serve(engine, make_model(tmp_path, "a.gguf"))
    switch = load_in_background(engine, make_model(tmp_path, "b.gguf", "hang"))
    with pytest.raises(Conflict, match=r"b\.gguf is being loaded"):
        engine.switch(make_model(tmp_path, "c.gguf"), commit_nothing)
    assert engine._loading is not None
    engine._loading.stop()
    switch.join()
    assert isinstance(switch.error, ModelInvalid)
    assert serve(engine, make_model(tmp_path, "c.gguf"))


def test_switch_to_the_model_that_serves_only_notes_the_choice(
    engine: Engine, tmp_path: Path
) -> None:
    """A switch to the current model loads nothing, but commits the choice."""
    model = make_model(tmp_path)
    pid = serve(engine, model)
    switch = Switch(engine, model)
    switch.join()
    assert (switch.error, switch.num_commits) == (None, 1)
    assert read_done(ask(engine, "say pid")) == (str(pid), "stop")


def test_switch_to_the_same_model_after_it_failed_loads_it_again(
    engine: Engine, tmp_path: Path
) -> None:
    """A switch to the same model loads it again if it died too often."""
    engine.start(make_model(tmp_path, how="die"))
    wait_until(lambda: engine.status().state == State.FAILED.value)
    assert "died 3 times" in engine.status().reason
    assert serve(engine, make_model(tmp_path))
    assert engine.status().num_restarts == 0


def test_first_model_that_failed_is_replaced_by_a_switch(engine: Engine, tmp_path: Path) -> None:
    """A first model that failed can be replaced without a restart of the daemon."""
    engine.start(make_model(tmp_path, "a.gguf", "refuse"))
    wait_until(lambda: engine.status().state == State.FAILED.value)
    assert "not a model that runs here" in engine.status().reason
    assert serve(engine, make_model(tmp_path, "b.gguf"))


def test_model_that_dies_whenever_it_is_ready_is_no_loss(engine: Engine, tmp_path: Path) -> None:
    """After a model that dies as soon as it is ready, the engine still has a supervisor."""
    serve(engine, make_model(tmp_path, "a.gguf"))
    Switch(engine, make_model(tmp_path, "b.gguf", "die when ready")).join()
    assert engine._current is not None
    assert engine._current.state is not State.STOPPED
    assert serve(engine, make_model(tmp_path, "c.gguf"))


def test_requests_and_switches_at_once_lose_no_request(engine: Engine, tmp_path: Path) -> None:
    """During switches, each request is served by one of the models."""
    models = [make_model(tmp_path, name) for name in ("a.gguf", "b.gguf")]
    serve(engine, models[0])
    ends = threading.Event()
    errors: list[Exception] = []

    def keep_asking() -> None:
        while not ends.is_set():
            try:
                assert read_done(ask(engine, "say hello")) == ("hello", "stop")
            except Exception as error:
                errors.append(error)
                return

    askers = [threading.Thread(target=keep_asking) for _ in range(3)]
    for asker in askers:
        asker.start()
    try:
        for number in range(1, 7):
            engine.switch(models[number % 2], commit_nothing)
    finally:
        ends.set()
        for asker in askers:
            asker.join(20)
    assert errors == []


def test_request_that_meets_the_old_model_as_it_stops_goes_to_the_new(
    engine: Engine, tmp_path: Path
) -> None:
    """A request to a supervisor that has just stopped goes to the new model."""
    serve(engine, make_model(tmp_path, "a.gguf"))
    old = engine._current
    assert old is not None
    submit_to_old = old.submit

    def change_first(request: object) -> Generation:
        old.submit = submit_to_old  # type: ignore[method-assign]
        engine.switch(make_model(tmp_path, "b.gguf"), commit_nothing)
        wait_until(lambda: old.state is State.STOPPED)
        return submit_to_old(request)  # type: ignore[arg-type]

    old.submit = change_first  # type: ignore[method-assign]
    generation = ask(engine, "say hello")
    assert generation.model == "b.gguf"
    assert read_done(generation) == ("hello", "stop")


def test_death_on_the_old_model_is_told_and_starts_nothing(engine: Engine, tmp_path: Path) -> None:
    """A retired worker that dies ends its requests and is not restarted."""
    pid = serve(engine, make_model(tmp_path, "a.gguf"))
    generation = ask(engine, "wait here")
    read_delta(generation)
    old = engine._current
    assert old is not None
    engine.switch(make_model(tmp_path, "b.gguf"), commit_nothing)
    assert old._process is not None
    old._process.kill()
    with pytest.raises(EngineDied):
        read_done(generation)
    wait_until(lambda: old.state is State.STOPPED)
    wait_until(lambda: not old._thread.is_alive())
    assert not is_alive(pid)
    assert read_done(ask(engine, "say hello")) == ("hello", "stop")
