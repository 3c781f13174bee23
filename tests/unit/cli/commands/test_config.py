"""`llmd config`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command_line import llmd


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Provide a valid configuration with one file in conf.d."""
    file = tmp_path / "llmd.toml"
    file.write_text('[store]\nurl = "postgresql://llmd:geheim@db/llmd"\n[log]\nlevel = "debug"\n')
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/log.toml").write_text('[log]\nlevel = "error"\n')
    return file


def test_a_valid_configuration_is_ok(tmp_path: Path) -> None:
    """`config check` names each file that is valid."""
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    one.touch()
    two.touch()
    assert llmd(one, "config", "check").stdout == f"{one}: ok\n"
    assert llmd(one, "config", "check", str(two), str(one)).stdout == f"{two}: ok\n{one}: ok\n"


def test_every_wrong_option_is_listed_and_the_status_is_78(config: Path) -> None:
    """`config check` lists all faults at once and exits with EX_CONFIG."""
    config.write_text("[server]\nmax_streams = 0\nmax_queu = 1\n")
    result = llmd(config, "config", "check")
    assert result.exit_code == 78
    assert result.stdout == ""
    head, *lines = result.stderr.splitlines()
    assert head == "llmd: cannot use the configuration:"
    assert [line.split(": ")[1] for line in lines] == ["server.max_streams", "server.max_queu"]


def test_a_valid_file_is_reported_together_with_a_wrong_one(tmp_path: Path) -> None:
    """`config check` checks the files after a wrong one, and fails in the end."""
    right = tmp_path / "right.toml"
    right.touch()
    missing = tmp_path / "missing.toml"
    result = llmd(right, "config", "check", str(missing), str(right))
    assert result.exit_code == 78
    assert result.stdout == f"{right}: ok\n"
    assert f"{missing}: no such file" in result.stderr


def test_a_database_url_that_names_no_file_is_wrong(config: Path) -> None:
    """`config check` also checks the URL of the database."""
    config.write_text('[store]\nurl = "sqlite:///:memory:"\n')
    result = llmd(config, "config", "check")
    assert result.exit_code == 78
    assert f"{config}: store.url must name a file" in result.stderr


def test_show_names_the_file_that_sets_an_option_and_hides_a_password(config: Path) -> None:
    """`config show` prints the value of each option and the last file that sets it."""
    output = llmd(config, "config", "show").stdout
    level = next(line for line in output.splitlines() if line.startswith("level"))
    assert level.split() == ["level", "=", '"error"', "#", str(config.parent / "conf.d/log.toml")]
    assert "max_streams = 8\n" in output
    assert "geheim" not in output


def test_show_as_json_has_values_and_files(config: Path) -> None:
    """`config show --json` prints the values and files as JSON, also without the password."""
    result = llmd(config, "config", "show", "--json")
    shown = json.loads(result.stdout)
    assert shown["config"]["log"]["level"] == "error"
    assert shown["files"]["store.url"] == str(config)
    assert shown["files"]["log.level"].endswith("conf.d/log.toml")
    assert "geheim" not in result.stdout
