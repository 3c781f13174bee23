"""The `llmd` command: its common options and its subcommands.

The modules of the commands import their dependencies only when they run, so that `llmd --help`
stays quick.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import click

from llmd import __version__
from llmd.cli.command import Group
from llmd.cli.commands.ask import ask
from llmd.cli.commands.config import config_group
from llmd.cli.commands.db import db_group
from llmd.cli.commands.import_seed import import_seed
from llmd.cli.commands.init import init
from llmd.cli.commands.key import key_group
from llmd.cli.commands.model import model_group
from llmd.cli.commands.profile import profile_group
from llmd.cli.commands.serve import serve
from llmd.cli.commands.session import session_group
from llmd.cli.commands.status import status
from llmd.cli.commands.tune import tune
from llmd.cli.installation import DEFAULT_CONFIG, Installation


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--config",
    "config_path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    envvar="LLMD_CONFIG",
    default=DEFAULT_CONFIG,
    show_default=True,
    show_envvar=True,
    help="The configuration; conf.d/*.toml next to it are read after it.",
)
@click.version_option(__version__, prog_name="llmd", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, config_path: Path) -> None:
    """Serve a language model over the network, and manage the server.

    Commands that show or change keys, profiles and sessions use the database directly, whether or
    not the daemon is running.

    Exit status: 0 success, 1 failure, 2 wrong usage, 78 wrong configuration.
    """
    ctx.obj = Installation(config_path)


for command in (
    serve,
    init,
    status,
    ask,
    key_group,
    profile_group,
    session_group,
    model_group,
    db_group,
    config_group,
    tune,
    import_seed,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line of this process, and exit with its status."""
    for stream in (sys.stdout, sys.stderr):
        # A name that a terminal without UTF-8 cannot show must not cause a traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    cli(prog_name="llmd")
