"""The command line of llmd, run within the process of a test."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from llmd.cli.main import cli


def llmd(config: Path, *args: str, env: dict[str, str] | None = None, stdin: str = "") -> Result:
    """Run a command with this configuration, and return its output and exit code."""
    return CliRunner(env=env).invoke(cli, ["--config", str(config), *args], input=stdin)


def write_config(folder: Path, *, port: int = 1) -> Path:
    """Write a configuration whose database and models are in `folder`, and return its path.

    Nothing listens at port 1.
    """
    file = folder / "llmd.toml"
    file.write_text(
        f'[server]\nlisten = ["127.0.0.1:{port}"]\n[store]\nurl = "sqlite:///{folder}/llmd.db"\n'
        f'[models]\ndir = "{folder}/models"\n[auth]\nargon2 = "cheapest"\n'
    )
    return file
