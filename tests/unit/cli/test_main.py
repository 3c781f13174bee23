"""The options and the behaviour that all commands share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from llmd import __version__
from llmd.cli.main import cli
from tests.support.command_line import llmd


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Provide an empty configuration file, which has all defaults."""
    file = tmp_path / "llmd.toml"
    file.touch()
    return file


def test_help_and_version_load_neither_the_database_nor_http() -> None:
    """`llmd --help` lists the commands without importing what only some of them need."""
    code = (
        "import sys; from llmd.cli.main import cli; cli(['--help'], standalone_mode=False);"
        "heavy = {'sqlalchemy', 'falcon', 'alembic', 'argon2', 'rich', 'http.client'};"
        "print('loaded:', *(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("loaded:\n")
    assert "  config " in done.stdout


def test_version_is_printed_on_one_line(config: Path) -> None:
    """`llmd --version` prints the name and the version."""
    assert llmd(config, "--version").output == f"llmd {__version__}\n"


def test_python_can_run_the_package() -> None:
    """`python -m llmd` runs the same command line."""
    command = [sys.executable, "-m", "llmd", "--version"]
    assert subprocess.check_output(command, text=True) == f"llmd {__version__}\n"


def test_the_environment_names_the_configuration(config: Path) -> None:
    """LLMD_CONFIG takes the place of --config."""
    result = CliRunner(env={"LLMD_CONFIG": str(config)}).invoke(cli, ["config", "check"])
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{config}: ok\n"


def test_an_unknown_command_is_wrong_usage(config: Path) -> None:
    """Wrong usage exits with status 2, as in commands of the shell."""
    assert llmd(config, "serv").exit_code == 2
    assert llmd(config, "config", "check", "--jason").exit_code == 2
