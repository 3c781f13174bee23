"""A command that says in one line what it could not do, and ends with the status that tells why."""

from __future__ import annotations

import errno
from typing import Any

import click

from llmd.errors import ConfigError, LlmdError, SchemaError

EXIT_FAILED = 1
# EX_CONFIG of sysexits.h: systemd is told not to start a service again that ends so.
EXIT_CONFIG = 78
# 128 + SIGINT, as a shell reports a program that Ctrl-C has ended.
EXIT_INTERRUPTED = 130


class Failure(click.ClickException):
    """A failure of a command, told without a trace."""

    exit_code = EXIT_FAILED

    def show(self, file: Any = None) -> None:
        """Write the message to standard error, whatever `file` is."""
        click.echo(f"llmd: {self.message}", file=file, err=True)


class Misconfigured(Failure):
    """A failure that another start will not mend."""

    exit_code = EXIT_CONFIG


class Group(click.Group):
    """List commands in the order in which they are made, which is the order of their use."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of the commands."""
        return list(self.commands)


class Command(click.Command):
    """Turn the errors of the house into a message that begins with `cannot …`."""

    def __init__(self, *args: Any, cannot: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._cannot = cannot

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Raises Failure for an error that is no fault of the program."""
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
    """Return what to say of a configuration with one fault, or with one a line."""
    between = "\n  " if "\n" in message else " "
    return f"cannot use the configuration:{between}" + message.replace("\n", "\n  ")
