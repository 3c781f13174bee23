"""Check at the start that a database has exactly the schema of this version of llmd.

SQLite has no checksums. A damaged statement of the schema can still be valid SQL, and be noticed
only by a request that needs the column or the constraint that it has lost.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy

from llmd.errors import SchemaError
from llmd.store import tables
from llmd.store.db import RESTORE, Database, opening_errors

_LAYOUT = re.compile(r'[\s"`]+')
"""Matches what two spellings of one statement may differ in: ALTER TABLE writes other quotes."""

SCHEMA_QUERY = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL"

_Statements = dict[tuple[str, str], str]
"""The statement that creates an object, by the kind and the name of the object."""


def require_intact(db: Database) -> None:
    """Read the whole database. Raise `SchemaError`, with the way to restore, if it is damaged.

    Indexes are not compared with their tables. The schema must be the newest.
    """
    with opening_errors():
        problems = db.check(full=False) or schema_problems(db)
    if problems:
        raise SchemaError(f"the database is damaged ({problems[0]}): {RESTORE}")


def schema_problems(db: Database) -> list[str]:
    """Return what the schema of an SQLite database lacks, or has differently from the newest.

    Additional tables and indexes are no problem. Other databases check their own schema.
    """
    if not db.is_sqlite:
        return []
    with db.read() as tx:
        return compare_schema(tx.exec_driver_sql(SCHEMA_QUERY).all())


def compare_schema(rows: Iterable[Sequence[Any]]) -> list[str]:
    """Return what the result of `SCHEMA_QUERY` lacks, or has differently from the newest schema."""
    present = _statements(rows)
    return [
        f"the {kind} {name} is missing" if (kind, name) not in present else f"{kind} {name} differs"
        for (kind, name), statement in _expected().items()
        if present.get((kind, name)) != statement
    ]


@functools.cache
def _expected() -> _Statements:
    """Return the statements that `tables` stands for. A test shows that revisions make the same."""
    engine = sqlalchemy.create_engine("sqlite://")
    try:
        with engine.begin() as tx:
            tables.metadata.create_all(tx)
            return _statements(tx.exec_driver_sql(SCHEMA_QUERY).all())
    finally:
        engine.dispose()


def _statements(rows: Iterable[Sequence[Any]]) -> _Statements:
    return {
        (str(kind), str(name)): _LAYOUT.sub("", str(statement)) for kind, name, statement in rows
    }
