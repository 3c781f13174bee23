"""`llmd import-seed` on a database of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command_line import llmd, write_config

MASTER = "A" * 20


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Provide a configuration with an empty database."""
    file = write_config(tmp_path)
    assert llmd(file, "db", "upgrade").exit_code == 0
    return file


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    """Provide a folder with the three files of a seed."""
    folder = tmp_path / "seed"
    folder.mkdir()
    (folder / "config.json").write_text('{"SelectedModel": "P", "P": {"model": "p.gguf"}}')
    (folder / "api_keys.json").write_text(json.dumps({"0": MASTER, "1": "B" * 20}))
    history = ["Human: hi", "AI: ho", "Human: and", "AI: so"]
    talk = {"Active": 1, "1": {"name": "hi", "history": history}}
    (folder / "sessions.json").write_text(json.dumps(talk))
    return folder


def test_a_seed_is_imported_and_counted(config: Path, seed: Path) -> None:
    """`import-seed` prints the numbers of what it imported, and never a key."""
    result = llmd(config, "import-seed", str(seed))
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "1 profile, 2 new keys, 1 session, 2 turns\n"
    assert MASTER not in result.output
    shown = json.loads(llmd(config, "session", "show", "1", "--json").stdout)
    assert [turn["user"] for turn in shown["turns"]] == ["hi", "and"]


def test_a_dry_run_counts_and_stores_nothing(config: Path, seed: Path) -> None:
    """`import-seed --dry-run` counts as the import would, and changes nothing."""
    counts = {"profiles": 1, "keys": 2, "sessions": 1, "turns": 2}
    for _ in range(2):
        shown = json.loads(llmd(config, "import-seed", str(seed), "--dry-run", "--json").stdout)
        assert shown == {"dry_run": True, **counts}
    assert json.loads(llmd(config, "key", "list", "--all", "--json").stdout) == {"keys": []}
    assert llmd(config, "import-seed", str(seed)).exit_code == 0
    result = llmd(config, "import-seed", str(seed), "--dry-run")
    assert result.exit_code == 1
    assert "sessions.json: 1: the master key already has a session with this id" in result.stderr


def test_a_wrong_seed_imports_nothing(config: Path, seed: Path) -> None:
    """If the last file is wrong, nothing of the others is imported."""
    (seed / "sessions.json").write_text('{"1": {"name": "x", "history": ["AI: first"]}}')
    result = llmd(config, "import-seed", str(seed))
    assert result.exit_code == 1
    assert "cannot import the seed: sessions.json: 1.history[0]" in result.stderr
    assert llmd(config, "profile", "show", "P").exit_code == 1
