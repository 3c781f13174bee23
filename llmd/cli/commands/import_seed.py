"""`llmd import-seed`: import the data of the project that preceded llmd, the seed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from llmd.cli.command import Command
from llmd.cli.installation import Installation, actor, pass_installation
from llmd.cli.output import counted, json_option, note, print_json

if TYPE_CHECKING:
    from llmd.store.db import Database


@click.command(
    "import-seed",
    cls=Command,
    cannot="import the seed",
    short_help="Import the data of the older project.",
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Check and count everything, but store nothing.")
@json_option
@pass_installation
def import_seed(installation: Installation, *, folder: Path, dry_run: bool, as_json: bool) -> None:
    """Import config.json, api_keys.json and sessions.json from DIR: all of them or nothing.

    The keys stay valid; the key "0" becomes an admin key and owns the sessions.
    """
    from llmd.auth import secret
    from llmd.store import seed

    hasher = secret.Hasher(installation.config.auth.argon2)
    with installation.database() as db:
        found = seed.read_seed(
            folder,
            hash_key=hasher.hash,
            new_id=secret.new_id,
            digest=secret.digest,
            now=int(time.time()),
        )
        target = _rehearsal(installation.config.store.url) if dry_run else db
        try:
            counts = seed.import_seed(target, found, actor=actor())
        finally:
            target.close()
    if as_json:
        print_json({"dry_run": dry_run, **msgspec.to_builtins(counts)})
        return
    click.echo(
        f"{counted(counts.profiles, 'profile')}, {counted(counts.keys, 'new key')}, "
        f"{counted(counts.sessions, 'session')}, {counted(counts.turns, 'turn')}"
    )
    if dry_run:
        note("nothing was stored: this was a dry run")


def _rehearsal(url: str) -> Database:
    """Return the database in a form that accepts every write and keeps none."""
    from llmd.store.db import Database, Tx

    class Undo(Exception):
        pass

    class Rehearsal(Database):
        @contextmanager
        def write(self) -> Iterator[Tx]:
            with suppress(Undo), super().write() as tx:
                yield tx
                raise Undo

    return Rehearsal(url)
