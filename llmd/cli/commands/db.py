"""`llmd db`: maintain the database."""

from __future__ import annotations

import time
from pathlib import Path

import click

from llmd.cli.command import EXIT_FAILED, Command, Group
from llmd.cli.installation import Installation, pass_installation, require_file
from llmd.cli.output import json_option, note, print_json


@click.group("db", cls=Group)
def db_group() -> None:
    """Upgrade, check, back up and restore the database."""


@db_group.command("upgrade", cls=Command, cannot="upgrade the database")
@json_option
@pass_installation
def upgrade(installation: Installation, *, as_json: bool) -> None:
    """Upgrade the database to the schema of this version.

    An existing database is backed up first, a missing one is created. `llmd serve` does the same
    when it starts.
    """
    from llmd.store import migrate

    done = migrate.upgrade(installation.config.store.url, now=int(time.time()))
    if as_json:
        backup = None if done.backup is None else str(done.backup)
        print_json({"before": done.before, "after": done.after, "backup": backup})
    elif done.before == done.after:
        note(f"the database is already at revision {done.after}")
    elif done.before is None:
        note(f"the database was created at revision {done.after}")
    else:
        note(f"the database is now at revision {done.after}; the backup is {done.backup}")


@db_group.command("check", cls=Command, cannot="check the database")
@json_option
@pass_installation
@click.pass_context
def check(ctx: click.Context, installation: Installation, *, as_json: bool) -> None:
    """Read the whole database and print its faults.

    The exit status is 1 if there are any.
    """
    from llmd.store import migrate
    from llmd.store.db import Database
    from llmd.store.integrity import schema_problems

    url = installation.config.store.url
    require_file(url)
    db = Database(url)
    try:
        problems = db.check()
        if not problems:
            migrate.require_head(url)
            problems = schema_problems(db)
    finally:
        db.close()
    if as_json:
        print_json({"ok": not problems, "problems": problems})
    else:
        for problem in problems or ["ok"]:
            click.echo(problem)
    if problems:
        ctx.exit(EXIT_FAILED)


@db_group.command("revision", cls=Command, cannot="read the revision of the database")
@json_option
@pass_installation
def revision(installation: Installation, *, as_json: bool) -> None:
    """Print the revision of the database's schema.

    It is "none" if there is no database yet. The revision may be newer than this version of llmd,
    because the database is only read.
    """
    from llmd.store import migrate

    present, wanted = migrate.current(installation.config.store.url), migrate.head()
    if as_json:
        print_json({"revision": present, "wanted": wanted})
    else:
        click.echo(present or "none")


@db_group.command("backup", cls=Command, cannot="back up the database")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
@pass_installation
def backup(installation: Installation, *, file: Path, as_json: bool) -> None:
    """Copy the database to the new FILE and check the copy.

    The daemon may be running.
    """
    from llmd.store import backup as store_backup

    url = installation.config.store.url
    require_file(url)
    store_backup.backup(url, file)
    if as_json:
        print_json({"file": str(file), "size_bytes": file.stat().st_size})
    else:
        note(f"the backup is in {file}")


@db_group.command("restore", cls=Command, cannot="restore the database")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
@pass_installation
def restore(installation: Installation, *, file: Path, as_json: bool) -> None:
    """Replace the database with the backup in FILE.

    The daemon must be stopped. The present database is kept under another name.
    """
    from llmd.store import backup as store_backup

    url = installation.config.store.url
    aside = store_backup.restore(url, file, now=int(time.time()))
    if as_json:
        print_json({"file": str(file), "replaced": None if aside is None else str(aside)})
        return
    note(f"the database is restored from {file}")
    if aside is not None:
        note(f"the replaced database is kept as {aside}")
