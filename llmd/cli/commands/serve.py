"""`llmd serve`: run the daemon."""

from __future__ import annotations

import click

from llmd.cli.command import Command
from llmd.cli.installation import Installation, pass_installation


@click.command("serve", cls=Command, cannot="serve", short_help="Run the daemon in the foreground.")
@pass_installation
@click.pass_context
def serve(ctx: click.Context, installation: Installation) -> None:
    """Run the daemon in the foreground until SIGTERM or Ctrl-C.

    This is the command that systemd starts.
    """
    from llmd.daemon import run

    ctx.exit(run.serve(installation.config_path))
