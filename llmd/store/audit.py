"""The audit trail: one row for each administrative write, in the transaction of that write."""

from __future__ import annotations

import builtins

import msgspec
from sqlalchemy import insert, select

from llmd.store import tables
from llmd.store.db import Database, Tx, page_size


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """An administrative write. `detail` never contains a key, a hash or a template."""

    id: int
    at: int
    actor: str
    action: str
    target: str
    detail: str


def record(tx: Tx, *, at: int, actor: str, action: str, target: str, detail: str = "") -> None:
    """Add an entry within `tx`, so that it is stored if and only if the change is."""
    values = {"at": at, "actor": actor, "action": action, "target": target, "detail": detail}
    tx.execute(insert(tables.audit).values(values))


class Audit:
    """Reads the audit trail."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def list(self, *, limit: int = 100, after: int | None = None) -> builtins.list[Entry]:
        """Return entries, the newest first. `after` is the last id of the previous page."""
        query = select(tables.audit).order_by(tables.audit.c.id.desc()).limit(page_size(limit))
        if after is not None:
            query = query.where(tables.audit.c.id < after)
        with self._db.read() as tx:
            return [Entry(**row._asdict()) for row in tx.execute(query)]
