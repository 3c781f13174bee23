"""Settings chosen at run time that outlive a restart: the selected model and profile."""

from __future__ import annotations

import msgspec
from sqlalchemy import delete, insert, select

from llmd.codecs import Codec
from llmd.errors import SchemaError, UnknownProfile
from llmd.store import audit, tables
from llmd.store.db import Database, Tx

DEFAULT_PROFILE = "default"
_SELECTION = "selection"


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """The selected model file, if any, and the profile for requests that name none."""

    model: str | None = None
    profile: str = DEFAULT_PROFILE


_SELECTIONS: Codec[Selection] = Codec(Selection)


def selection(tx: Tx) -> Selection:
    """Return the selection within `tx`. Raise SchemaError if it cannot be read."""
    query = select(tables.settings.c.value).where(tables.settings.c.name == _SELECTION)
    value = tx.execute(query).scalar_one_or_none()
    if value is None:
        return Selection()
    try:
        return _SELECTIONS.decode_json(value)
    except msgspec.MsgspecError as error:
        raise SchemaError(f"the selection in the database cannot be read: {error}") from error


def choose(tx: Tx, chosen: Selection, *, actor: str, now: int) -> Selection:
    """Run `Settings.select` within `tx`."""
    heads, rows = tables.profiles, tables.settings
    known = (heads.c.name == chosen.profile) & heads.c.deleted_at.is_(None)
    if tx.execute(select(heads.c.name).where(known)).one_or_none() is None:
        raise UnknownProfile(
            "no profile has this name: see the list of profiles", param="model_config"
        )
    value = msgspec.json.encode(chosen).decode()
    # Portable SQL has no upsert. With a single writer, delete and insert do the same.
    tx.execute(delete(rows).where(rows.c.name == _SELECTION))
    tx.execute(insert(rows).values(name=_SELECTION, value=value, updated_at=now))
    audit.record(
        tx,
        at=now,
        actor=actor,
        action="selection",
        target=chosen.profile,
        detail=f"model {chosen.model}" if chosen.model else "",
    )
    return chosen


class Settings:
    """Stores the selection."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def selection(self) -> Selection:
        """Return the selection: at first the profile `default` and no model."""
        with self._db.read() as tx:
            return selection(tx)

    def select(self, *, model: str | None, profile: str, actor: str, now: int) -> Selection:
        """Select a model and a profile, or raise UnknownProfile."""
        with self._db.write() as tx:
            return choose(tx, Selection(model=model, profile=profile), actor=actor, now=now)
