"""Upgrade a database to the newest schema: copy it, then run all revisions in one transaction."""

from __future__ import annotations

import time
from importlib import resources
from pathlib import Path

import msgspec
import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError

from llmd.errors import SchemaError
from llmd.store.db import (
    RESTORE,
    Database,
    Tx,
    create_file,
    damaged_error,
    driver_errors,
    make_engine,
    match_owner,
    opening_errors,
    sqlite_path,
)
from llmd.store.snapshot import file_errors, snapshot


class Upgrade(msgspec.Struct, frozen=True, kw_only=True):
    """What `upgrade` did. `before` is None for a new database, and `backup` if none was needed."""

    before: str | None
    after: str
    backup: Path | None


def alembic_config(tx: Tx | None = None, *, scripts: Path | None = None) -> Config:
    """Return the Alembic configuration for `tx`. `scripts` replaces the revisions of llmd."""
    config = Config()
    folder = scripts or Path(str(resources.files("llmd.migrations")))
    # Alembic expands percent signs in its options, so they are doubled.
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = tx
    return config


def _revisions(scripts: Path | None) -> tuple[str, set[str]]:
    """Return the newest revision, and the set of all revisions."""
    folder = ScriptDirectory.from_config(alembic_config(scripts=scripts))
    return str(folder.get_current_head()), {script.revision for script in folder.walk_revisions()}


def head(*, scripts: Path | None = None) -> str:
    """Return the revision that this version of llmd needs."""
    return _revisions(scripts)[0]


def current(url: str) -> str | None:
    """Return the revision of a database, or None if it is empty or missing. Creates no file.

    Raise SchemaError if it is damaged, or contains tables of another program.
    """
    path = sqlite_path(url)
    if path is not None and not path.exists():
        return None
    db = Database(url)
    try:
        return revision_of(db)
    finally:
        db.close()


def revision_of(db: Database) -> str | None:
    """Return the revision of an open database, or None if it is empty. Raise SchemaError."""
    try:
        with opening_errors(), db.read() as tx:
            revision = MigrationContext.configure(tx).get_current_revision()
            if revision is None:
                _require_new(tx, is_sqlite=db.is_sqlite)
    except CommandError as error:
        # There are several revisions.
        raise damaged_error() from error
    return revision


def _require_new(tx: Tx, *, is_sqlite: bool) -> None:
    """Raise SchemaError if a database without a revision is not an empty one."""
    if set(sqlalchemy.inspect(tx).get_table_names()) - {"alembic_version"}:
        raise SchemaError(
            f"the database belongs to another program, or is damaged: choose another file, "
            f"or {RESTORE}"
        )
    # A file that was just created has at most the page of its header.
    if is_sqlite and tx.exec_driver_sql("PRAGMA page_count").scalar_one() > 1:
        raise damaged_error()


def require_known(revision: str | None, *, scripts: Path | None = None) -> None:
    """Raise SchemaError if this version of llmd does not have `revision`."""
    if revision is not None and revision not in _revisions(scripts)[1]:
        raise SchemaError(
            f"the database is newer (revision {revision}) than this version of llmd: "
            f"upgrade llmd, or {RESTORE}"
        )


def require_head(url: str, *, scripts: Path | None = None) -> None:
    """Raise SchemaError unless the database has the schema of this version of llmd."""
    wanted = head(scripts=scripts)
    revision = current(url)
    if revision is None:
        raise SchemaError("the database is empty: run `llmd init`")
    require_known(revision, scripts=scripts)
    if revision != wanted:
        raise SchemaError(
            f"the database has schema revision {revision} instead of {wanted}: "
            "run `llmd db upgrade`"
        )


def upgrade(
    url: str, *, backup_dir: Path | None = None, now: int, scripts: Path | None = None
) -> Upgrade:
    """Create the schema, or upgrade it to the newest revision. If it is the newest, do nothing.

    An older SQLite file is first copied to `backup_dir`, or beside the file if that is None. A
    kill at any moment leaves either the old schema or the new one. Raise SchemaError for a newer
    database, or if a revision fails; nothing is changed then.
    """
    wanted = head(scripts=scripts)
    before = current(url)
    require_known(before, scripts=scripts)
    if before == wanted:
        return Upgrade(before=before, after=wanted, backup=None)
    path = sqlite_path(url)
    backup: Path | None = None
    if path is not None:
        create_file(path)
        if before is not None:
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
            backup = (backup_dir or path.parent) / f"{path.name}.{before}.{stamp}.bak"
            snapshot(path, backup)
            with file_errors():
                match_owner(backup, path)
    try:
        _run(url, scripts, is_sqlite=path is not None)
    except BaseException:
        # The database is unchanged, and a copy for each failed start would fill the disk.
        if backup is not None:
            backup.unlink(missing_ok=True)
        raise
    return Upgrade(before=before, after=wanted, backup=backup)


def _run(url: str, scripts: Path | None, *, is_sqlite: bool) -> None:
    engine = make_engine(url, "migration")
    try:
        with driver_errors(), engine.begin() as tx:
            command.upgrade(alembic_config(tx, scripts=scripts), "head")
            if is_sqlite:
                _check_references(tx)
    except SchemaError as error:
        # `driver_errors` says only that the schema differs. During an upgrade the cause matters.
        if not isinstance(error.__cause__, DBAPIError):
            raise
        cause = error.__cause__.orig
        raise _upgrade_error(cause) from error
    except (CommandError, DBAPIError) as error:
        raise _upgrade_error(error.orig if isinstance(error, DBAPIError) else error) from error
    finally:
        engine.dispose()


def _upgrade_error(cause: object) -> SchemaError:
    return SchemaError(
        f"the upgrade failed and changed nothing: {cause}: if the database is damaged, {RESTORE}"
    )


def _check_references(tx: Tx) -> None:
    if tx.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
        raise SchemaError("the upgrade would break references between rows and was not done")
