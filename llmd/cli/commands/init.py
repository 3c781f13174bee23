"""`llmd init`: make the database, the first admin key and the profile that every machine has."""

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
    "init", cls=Command, cannot="set llmd up", short_help="Make database, admin key and profile."
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
    """Make the database, the first admin key and the profile "default".

    The key is shown once, on a terminal, or written to a file: it cannot be read again from the
    database. Refuses when there is an admin key already.
    """
    if key_file is None and not on_terminal():
        # What is printed into a pipe or a journal is no secret any more.
        raise click.UsageError("name a file for the key with --key-file: no terminal to show it on")
    _refuse_second(installation)
    if key_file is None:
        key = _set_up(installation, name, None)
    else:
        # First of all, so that a file that cannot be made costs nothing.
        descriptor = os.open(key_file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            key = _set_up(installation, name, descriptor)
        except BaseException:
            key_file.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
    _tell(installation, key, name, key_file, as_json=as_json)


def _refuse_second(installation: Installation) -> None:
    """Raise Conflict where llmd is set up already, before anything is touched."""
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
            "there is an admin key already: make another one by `llmd key create NAME --role admin`"
        )


def _set_up(installation: Installation, name: str, descriptor: int | None) -> NewKey:
    """Make schema, key and profile, and return the key, which is on the disk by then."""
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
            # Nobody else writes now: what is read beside this transaction is what holds.
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


def _tell(
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
    note(f'llmd is set up: {database}\n\nThe key "{name}", shown this once:\n')
    click.echo(f"  {key.text}\n")
    note("Keep it safe, or in a file of mode 0600 that --key-file or LLMD_KEY_FILE names.")
