"""`llmd init`: create the database, the first admin key and the default profile."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmd.cli.command import Command
from llmd.cli.commands.key import every_key
from llmd.cli.installation import Installation, actor, pass_installation
from llmd.cli.output import json_option, note, on_terminal, print_json
from llmd.errors import Conflict, UnknownProfile

if TYPE_CHECKING:
    from llmd.auth.secret import NewKey
    from llmd.store.db import Database


@click.command(
    "init", cls=Command, cannot="set llmd up", short_help="Create database, admin key and profile."
)
@click.option(
    "--key-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write the key to this new file (mode 0600) instead of the terminal.",
)
@click.option("--name", default="admin", show_default=True, help="The name of the key.")
@json_option
@pass_installation
def init(installation: Installation, *, key_file: Path | None, name: str, as_json: bool) -> None:
    """Create the database, the first admin key and the profile "default".

    The key is shown once on a terminal, or written to a file; the database has only its hash. The
    command fails if there is an admin key already.
    """
    if key_file is None and not on_terminal():
        # A key in a pipe or a journal is no longer a secret.
        raise click.UsageError("without a terminal, name a file for the key with --key-file")
    _refuse_second(installation)
    if key_file is None:
        key = _set_up(installation, name, None)
    else:
        # The file comes first: if it cannot be created, nothing has been changed.
        descriptor = os.open(key_file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            key = _set_up(installation, name, descriptor)
        except BaseException:
            key_file.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
    _report(installation, key, name, key_file, as_json=as_json)


def _refuse_second(installation: Installation) -> None:
    """Raise `Conflict` if llmd is set up already, before anything is changed."""
    from llmd.store import migrate
    from llmd.store.db import Database

    url = installation.config.store.url
    if migrate.current(url) != migrate.head():
        return
    db = Database(url)
    try:
        _refuse_admins(db)
    finally:
        db.close()


def _refuse_admins(db: Database) -> None:
    if any(key.role == "admin" for key in every_key(db)):
        raise Conflict(
            "there is an admin key already: create another with `llmd key create NAME --role admin`"
        )


def _set_up(installation: Installation, name: str, descriptor: int | None) -> NewKey:
    """Create schema, key and profile. Return the key once it is on the disk."""
    from llmd.auth import secret
    from llmd.store import keys, migrate, profiles
    from llmd.store.db import Database
    from llmd.store.settings import DEFAULT_PROFILE

    url, now = installation.config.store.url, int(time.time())
    keys.check_name(name)
    key = secret.make()
    hashed = secret.Hasher(installation.config.auth.argon2).hash(key.text)
    migrate.upgrade(url, now=now)
    db = Database(url)
    try:
        with db.write() as tx:
            # No other process writes now, so what is read beside this transaction stays true.
            _refuse_admins(db)
            row = keys.Key(id=key.id, name=name, role="admin", hash=hashed, created_at=now)
            keys.add(tx, row, actor=actor())
            try:
                profiles.Profiles(db).get(DEFAULT_PROFILE)
            except UnknownProfile:
                profiles.put(tx, DEFAULT_PROFILE, profiles.Profile(), actor=actor(), now=now)
            if descriptor is not None:
                os.write(descriptor, f"{key.text}\n".encode())
                os.fsync(descriptor)
    finally:
        db.close()
    return key


def _report(
    installation: Installation, key: NewKey, name: str, key_file: Path | None, *, as_json: bool
) -> None:
    database = installation.config.store.url.removeprefix("sqlite:///")
    if as_json:
        shown = {"key": key.text} if key_file is None else {"key_file": str(key_file)}
        print_json({"id": key.id, "name": name, "role": "admin", **shown})
        return
    if key_file is not None:
        note(f'llmd is set up; the key "{name}" ({key.id}) is in {key_file}')
        return
    note(f'llmd is set up: {database}\n\nThe key "{name}", which is shown only now:\n')
    click.echo(f"  {key.text}\n")
    note("Keep it safe. Commands read it from a file that --key-file or LLMD_KEY_FILE names.")
