"""`llmd tune`: its output, and the file that it writes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from llmd import config
from llmd.engine.tuning import Speed, Tuner
from tests.support.command_line import llmd, write_config
from tests.support.gguf_file import build


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Provide the configuration of a machine with four cores, whose speed is a formula."""
    models = tmp_path / "models"
    models.mkdir()
    (models / "tiny.gguf").write_bytes(build())
    file = write_config(tmp_path)
    assert llmd(file, "init", "--key-file", str(tmp_path / "admin.key")).exit_code == 0

    def measure(_tuner: Tuner, threads: int, batch: int) -> Speed:
        return Speed(
            threads=threads,
            batch=batch,
            read=100.0 * threads * (1 if batch > 128 else 0.5),
            alone=50.0,
            together=80.0 * threads,
        )

    monkeypatch.setattr(Tuner, "measure", measure)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3})
    return file


def test_tune_shows_the_speed_of_each_setting_and_changes_nothing(installed: Path) -> None:
    """`tune` prints the speeds, marks the best settings and says how to apply them."""
    result = llmd(installed, "tune")
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()[1:5]] == [
        ["1", "384", "100.0", "50.0", "80.0", "threads"],
        ["2", "384", "200.0", "50.0", "160.0"],
        ["3", "384", "300.0", "50.0", "240.0"],
        ["4", "384", "400.0", "50.0", "320.0", "threads_batch,", "batch"],
    ]
    assert "[engine]\nthreads = 1\nthreads_batch = 4\nbatch = 384\n" in result.stdout
    assert "llmd tune --write" in result.stderr
    assert not (installed.parent / "conf.d").exists()


def test_tune_writes_a_file_that_the_next_start_reads(installed: Path) -> None:
    """`tune --write` writes the best settings to conf.d, where the configuration has them."""
    result = llmd(installed, "tune", "tiny.gguf", "--write", "--json")
    assert result.exit_code == 0
    file = installed.parent / "conf.d" / "50-tuned.toml"
    printed = json.loads(result.stdout)
    assert printed["written"] == str(file)
    assert printed["engine"] == {"threads": 1, "threads_batch": 4, "batch": 384}
    assert len(printed["speeds"]) == 6
    engine = config.load(installed).engine
    assert (engine.threads, engine.threads_batch, engine.batch) == (1, 4, 384)
    assert [found.name for found in file.parent.iterdir()] == ["50-tuned.toml"]


def test_tune_reports_an_unknown_model(installed: Path) -> None:
    """The error for an unknown model names it."""
    result = llmd(installed, "tune", "big.gguf")
    assert result.exit_code == 1
    assert "cannot measure" in result.stderr
    assert "big.gguf" in result.stderr


def test_tune_without_any_model_says_how_to_add_one(installed: Path) -> None:
    """Without a model, the error names `llmd model add`."""
    (installed.parent / "models" / "tiny.gguf").unlink()
    result = llmd(installed, "tune")
    assert result.exit_code == 1
    assert "llmd model add FILE" in result.stderr
