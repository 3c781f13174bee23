"""Keys: their roles and validity. Only hashes are stored, never a key itself."""

from __future__ import annotations

import builtins
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import ColumnElement, Row, and_, func, insert, or_, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from llmd.errors import Conflict, InvalidField, UnknownKey
from llmd.store import audit, tables
from llmd.store.db import Database, Tx, is_storable, page_size

MAX_NAME_CHARS = 100
Role = Literal["admin", "user"]
_keys = tables.keys


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `keys`. `hash` is Argon2id. `digest` is set only for seed keys, which hold no id."""

    id: str
    name: str
    role: Role
    hash: str
    digest: str | None = None
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None
    last_used_at: int | None = None

    def is_valid(self, now: int) -> bool:
        """Return whether the key is neither revoked nor expired at `now`."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def __repr__(self) -> str:
        # A key that is logged by accident must not expose its hash.
        return f"Key(id={self.id!r}, name={self.name!r}, role={self.role!r})"


def check_name(name: str) -> str:
    """Return `name`, or raise InvalidField if it is not a valid name for a key."""
    if not 1 <= len(name) <= MAX_NAME_CHARS or not name.isprintable() or not is_storable(name):
        raise InvalidField(
            f"a key's name must be 1 to {MAX_NAME_CHARS} printable characters", param="name"
        )
    return name


def _check_role(role: str) -> str:
    if role not in ("admin", "user"):
        raise InvalidField("role must be admin or user", param="role")
    return role


def _key(row: Row[Any]) -> Key:
    return Key(**row._asdict())


def _get(tx: Tx, key_id: str) -> Key:
    row = tx.execute(select(_keys).where(_keys.c.id == key_id)).one_or_none()
    if row is None:
        raise UnknownKey("no key has this id: see the list of keys")
    return _key(row)


def _valid_admins(now: int) -> ColumnElement[bool]:
    is_current = or_(_keys.c.expires_at.is_(None), _keys.c.expires_at > now)
    return and_(_keys.c.role == "admin", _keys.c.revoked_at.is_(None), is_current)


def _count_admins(tx: Tx, now: int) -> int:
    return tx.execute(select(func.count()).where(_valid_admins(now))).scalar_one()


def _change(tx: Tx, key_id: str, changes: dict[str, Any], now: int) -> Key:
    """Change a row. Raise Conflict if that would leave no valid admin key."""
    num_before = _count_admins(tx, now)
    tx.execute(update(_keys).where(_keys.c.id == key_id).values(changes))
    if num_before and not _count_admins(tx, now):
        raise Conflict("this is the last valid admin key: create another admin key first")
    return _get(tx, key_id)


def find_digest(tx: Tx, digest: str) -> Key | None:
    """Run `Keys.by_digest` within `tx`."""
    row = tx.execute(select(_keys).where(_keys.c.digest == digest)).one_or_none()
    return None if row is None else _key(row)


def add(tx: Tx, key: Key, *, actor: str) -> Key:
    """Run `Keys.add` within `tx`."""
    check_name(key.name)
    _check_role(key.role)
    try:
        tx.execute(insert(_keys).values(msgspec.structs.asdict(key)))
    except IntegrityError as error:
        raise Conflict("there is already a key with this id or digest") from error
    audit.record(
        tx, at=key.created_at, actor=actor, action="key.add", target=key.id, detail=key.role
    )
    return key


class Keys:
    """Stores the keys. Each call reads the rows anew: another process may have revoked a key."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, key: Key, *, actor: str) -> Key:
        """Store a new key, or raise Conflict (id, digest) or InvalidField (name, role)."""
        with self._db.write() as tx:
            return add(tx, key, actor=actor)

    def by_id(self, key_id: str) -> Key | None:
        """Return the key with this id, valid or not, or None."""
        with self._db.read() as tx:
            row = tx.execute(select(_keys).where(_keys.c.id == key_id)).one_or_none()
        return None if row is None else _key(row)

    def by_digest(self, digest: str) -> Key | None:
        """Return the seed key with this digest, valid or not, or None."""
        with self._db.read() as tx:
            return find_digest(tx, digest)

    def get(self, key_id: str) -> Key:
        """Return the key with this id, valid or not, or raise UnknownKey."""
        with self._db.read() as tx:
            return _get(tx, key_id)

    def list(
        self, *, limit: int = 100, after: str | None = None, include_revoked: bool = True
    ) -> builtins.list[Key]:
        """Return keys in order of creation. `after` is the last id of the previous page."""
        query = select(_keys).order_by(_keys.c.created_at, _keys.c.id).limit(page_size(limit))
        if not include_revoked:
            query = query.where(_keys.c.revoked_at.is_(None))
        with self._db.read() as tx:
            if after is not None:
                position = select(_keys.c.created_at).where(_keys.c.id == after)
                created_at = tx.execute(position).scalar_one_or_none()
                if created_at is None:
                    raise InvalidField("after must be the id of a key", param="after")
                query = query.where(tuple_(_keys.c.created_at, _keys.c.id) > (created_at, after))
            return [_key(row) for row in tx.execute(query)]

    def update(
        self,
        key_id: str,
        *,
        name: str | UnsetType = UNSET,
        role: Role | UnsetType = UNSET,
        expires_at: int | UnsetType | None = UNSET,
        actor: str,
        now: int,
    ) -> Key:
        """Change the given fields of a key.

        Raise UnknownKey, InvalidField, or Conflict if no valid admin key would be left.
        """
        changes: dict[str, Any] = {}
        if name is not UNSET:
            changes["name"] = check_name(name)
        if role is not UNSET:
            changes["role"] = _check_role(role)
        if expires_at is not UNSET:
            changes["expires_at"] = expires_at
        with self._db.write() as tx:
            key = _get(tx, key_id)
            if not changes:
                return key
            changed = _change(tx, key_id, changes, now)
            detail = " ".join(f"{field}={value}" for field, value in sorted(changes.items()))
            audit.record(tx, at=now, actor=actor, action="key.update", target=key_id, detail=detail)
        return changed

    def revoke(self, key_id: str, *, now: int, actor: str) -> Key:
        """Revoke a key permanently. A key that is already revoked keeps its time.

        Raise UnknownKey, or Conflict if no valid admin key would be left.
        """
        with self._db.write() as tx:
            key = _get(tx, key_id)
            if key.revoked_at is not None:
                return key
            key = _change(tx, key_id, {"revoked_at": now}, now)
            audit.record(tx, at=now, actor=actor, action="key.revoke", target=key_id)
        return key

    def touch(self, key_id: str, now: int) -> None:
        """Record that the key was used at `now`, unless a later use is recorded."""
        is_later = or_(_keys.c.last_used_at.is_(None), _keys.c.last_used_at < now)
        with self._db.write() as tx:
            query = update(_keys).where(_keys.c.id == key_id, is_later)
            tx.execute(query.values(last_used_at=now))

    def rehash(self, key_id: str, hashed: str) -> None:
        """Replace the hash of a key by one with newer parameters."""
        with self._db.write() as tx:
            tx.execute(update(_keys).where(_keys.c.id == key_id).values(hash=hashed))

    def count_admins(self, now: int) -> int:
        """Return the number of admin keys that are neither revoked nor expired."""
        with self._db.read() as tx:
            return _count_admins(tx, now)
