"""The command line of llmd, run in the process of the test."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from llmd.cli.main import cli


def llmd(config: Path, *args: str, env: dict[str, str] | None = None, stdin: str = "") -> Result:
    """Run a command with this configuration, and return its output and exit code."""
    return CliRunner(env=env).invoke(cli, ["--config", str(config), *args], input=stdin)
