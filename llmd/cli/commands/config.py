"""`llmd config`: check the configuration, and show its values."""

from __future__ import annotations

import tomllib
from pathlib import Path

import click

from llmd.cli.command import Command, Group
from llmd.cli.installation import Installation, pass_installation
from llmd.cli.output import json_option, print_json
from llmd.errors import ConfigError


@click.group("config", cls=Group)
def config_group() -> None:
    """Check and show the configuration."""


@config_group.command("check", cls=Command, cannot="check the configuration")
@click.argument("files", metavar="[FILE]...", nargs=-1, type=click.Path(path_type=Path))
@pass_installation
def check(installation: Installation, files: tuple[Path, ...]) -> None:
    """Check FILE and the conf.d/*.toml next to it.

    Without FILE, the file of --config is checked. Each wrong option is printed on a line of its
    own, with its allowed values; the exit status is then 78.
    """
    from llmd.daemon import configuration

    wrong: list[str] = []
    for file in files or (installation.config_path,):
        try:
            configuration.load(file)
        except ConfigError as error:
            wrong.append(error.message)
        else:
            click.echo(f"{file}: ok")
    if wrong:
        raise ConfigError("\n".join(wrong))


@config_group.command("show", cls=Command, cannot="show the configuration")
@json_option
@pass_installation
def show(installation: Installation, *, as_json: bool) -> None:
    """Show every option with its value and the file that sets it.

    A password in store.url is hidden.
    """
    from llmd import config

    text = config.to_toml(installation.config)
    files = _files(installation.config_path)
    if as_json:
        named = {f"{section}.{key}": str(file) for (section, key), file in files.items()}
        print_json({"config": tomllib.loads(text), "files": named})
        return
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        file_of_line = files.get((section, line.partition(" = ")[0]))
        click.echo(f"{line:<50}  # {file_of_line}" if file_of_line else line)


def _files(path: Path) -> dict[tuple[str, str], Path]:
    """Return the last file that sets each option. The files must have been checked."""
    from llmd import config

    found: dict[tuple[str, str], Path] = {}
    for file in (path, *config.parts(path)):
        for section, table in config.read_file(file).items():
            found |= {(section, key): file for key in table}
    return found
