"""The base classes of commands, which turn errors into one-line messages and exit codes."""

from __future__ import annotations

import errno
from typing import Any

import click

from llmd.errors import ConfigError, LlmdError, SchemaError

EXIT_FAILED = 1
# EX_CONFIG of sysexits.h. The systemd unit does not restart a service that exits with it.
EXIT_CONFIG = 78
# 128 + SIGINT, as a shell reports a program that Ctrl-C has ended.
EXIT_INTERRUPTED = 130


class Failure(click.ClickException):
    """A failure of a command, reported without a traceback."""

    exit_code = EXIT_FAILED

    def show(self, file: Any = None) -> None:
        """Write the message to `file`, or to standard error by default."""
        click.echo(f"llmd: {self.message}", file=file, err=True)


class Misconfigured(Failure):
    """A failure that starting again does not fix: the configuration or the database is wrong."""

    exit_code = EXIT_CONFIG


class Group(click.Group):
    """A group that lists its commands in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of the commands."""
        return list(self.commands)


class Command(click.Command):
    """A command that turns the errors of llmd into messages that begin with `cannot …`."""

    def __init__(self, *args: Any, cannot: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._cannot = cannot

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Raise `Failure` for an error that is not a bug."""
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise Misconfigured(_configuration(error.message)) from error
        except LlmdError as error:
            kind = Misconfigured if isinstance(error, SchemaError) else Failure
            raise kind(f"cannot {self._cannot}: {error.message}") from error
        except OSError as error:
            if error.errno == errno.EPIPE or error.strerror is None:
                raise
            where = f"{error.filename}: " if error.filename else ""
            reason = error.strerror[:1].lower() + error.strerror[1:]
            raise Failure(f"cannot {self._cannot}: {where}{reason}") from error
        except KeyboardInterrupt:
            click.echo(err=True)
            ctx.exit(EXIT_INTERRUPTED)


def _configuration(message: str) -> str:
    """Return the message for a configuration with one fault, or with a fault on each line."""
    between = "\n  " if "\n" in message else " "
    return f"cannot use the configuration:{between}" + message.replace("\n", "\n  ")
