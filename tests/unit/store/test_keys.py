"""Keys in the store."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from llmd.errors import Conflict, InvalidField, UnknownKey
from llmd.store.audit import Audit
from llmd.store.db import Database
from llmd.store.keys import Key, Keys, Role

NOW = 1000


@pytest.fixture
def keys(db: Database) -> Keys:
    """Return the keys of that database."""
    return Keys(db)


def key(
    key_id: str, role: Role = "user", *, expires_at: int | None = None, digest: str | None = None
) -> Key:
    """Return a row for a key."""
    return Key(
        id=key_id,
        name=f"name of {key_id}",
        role=role,
        hash=f"$argon2id$secret-{key_id}",
        digest=digest,
        created_at=NOW,
        expires_at=expires_at,
    )


def test_a_key_is_read_as_it_was_added(keys: Keys) -> None:
    """A key is found by its id and by its digest, with every field."""
    added = keys.add(key("a", "admin", expires_at=5000, digest="d" * 64), actor="cli")
    assert keys.by_id("a") == keys.get("a") == keys.by_digest("d" * 64) == added
    assert keys.by_id("b") is None
    assert keys.by_digest("e" * 64) is None
    with pytest.raises(UnknownKey):
        keys.get("b")


@pytest.mark.parametrize("second", [key("a"), key("b", digest="d" * 64)])
def test_a_second_key_of_the_same_id_or_digest_is_refused(keys: Keys, second: Key) -> None:
    """A key with the id or the digest of another one is refused, and the first is unchanged."""
    first = keys.add(key("a", digest="d" * 64), actor="cli")
    with pytest.raises(Conflict):
        keys.add(second, actor="cli")
    assert keys.list() == [first]


@pytest.mark.parametrize("name", ["", "x" * 101, "two\nlines", "nul\x00", "half \ud800"])
def test_a_name_is_short_and_printable(keys: Keys, name: str) -> None:
    """A name that is empty, too long or not printable is refused."""
    keys.add(key("a"), actor="cli")
    with pytest.raises(InvalidField):
        keys.update("a", name=name, actor="cli", now=NOW)
    assert keys.get("a").name == "name of a"


def test_keys_are_listed_in_pages_in_order_of_creation(keys: Keys) -> None:
    """The pages together list every key by time of creation, then by id."""
    for name, at in (("c", 1), ("a", 2), ("b", 2), ("d", 3), ("e", 0)):
        keys.add(Key(id=name, name=name, role="user", hash="h", created_at=at), actor="cli")
    found: list[str] = []
    while page := keys.list(limit=2, after=found[-1] if found else None):
        found += [row.id for row in page]
    assert found == ["e", "c", "a", "b", "d"]
    with pytest.raises(InvalidField):
        keys.list(after="nobody")


def test_revoked_keys_can_be_left_out_of_the_list(keys: Keys) -> None:
    """Revoked keys are listed unless the caller asks for the others only."""
    for name in ("a", "b"):
        keys.add(key(name), actor="cli")
    keys.revoke("a", now=NOW, actor="cli")
    assert [row.id for row in keys.list()] == ["a", "b"]
    assert [row.id for row in keys.list(include_revoked=False)] == ["b"]


def test_an_update_changes_only_the_given_fields(keys: Keys) -> None:
    """An update changes the given fields only; None for `expires_at` means never."""
    keys.add(key("a", expires_at=5000), actor="cli")
    assert keys.update("a", name="new", actor="cli", now=NOW).expires_at == 5000
    changed = keys.update("a", expires_at=None, role="admin", actor="cli", now=NOW)
    assert (changed.name, changed.expires_at, changed.role) == ("new", None, "admin")
    assert keys.update("a", actor="cli", now=NOW) == keys.get("a") == changed
    with pytest.raises(UnknownKey):
        keys.update("b", name="x", actor="cli", now=NOW)
    with pytest.raises(InvalidField):
        keys.update("a", role="root", actor="cli", now=NOW)  # type: ignore[arg-type]


def test_revoking_twice_keeps_the_first_time(keys: Keys) -> None:
    """Revoking a key again is no error and keeps the time of the first revocation."""
    keys.add(key("a"), actor="cli")
    assert keys.revoke("a", now=NOW, actor="cli").revoked_at == NOW
    assert keys.revoke("a", now=NOW + 9, actor="cli").revoked_at == NOW
    with pytest.raises(UnknownKey):
        keys.revoke("b", now=NOW, actor="cli")


def test_a_key_revoked_by_another_process_is_revoked_at_the_next_read(
    keys: Keys, tmp_path: Path
) -> None:
    """Rows are not cached, so a revocation takes effect at the next read."""
    keys.add(key("a"), actor="cli")
    assert keys.get("a").is_valid(NOW)
    with closing(sqlite3.connect(tmp_path / "llmd.db")) as other, other:
        other.execute("UPDATE keys SET revoked_at = 5")
    assert not keys.get("a").is_valid(NOW)


def test_a_key_is_valid_until_the_second_it_expires() -> None:
    """A key is not valid from the second of `expires_at` on."""
    assert key("a", expires_at=NOW + 1).is_valid(NOW)
    assert not key("a", expires_at=NOW).is_valid(NOW)


def test_the_last_valid_admin_key_can_be_neither_revoked_demoted_nor_expired(keys: Keys) -> None:
    """Only valid admin keys count as others. The row of the last one stays unchanged."""
    last = keys.add(key("last", "admin"), actor="cli")
    keys.add(key("revoked", "admin"), actor="cli")
    keys.revoke("revoked", now=NOW, actor="cli")
    keys.add(key("expired", "admin", expires_at=NOW), actor="cli")
    keys.add(key("user"), actor="cli")
    assert keys.count_admins(NOW) == 1
    with pytest.raises(Conflict):
        keys.revoke("last", now=NOW, actor="cli")
    with pytest.raises(Conflict):
        keys.update("last", role="user", actor="cli", now=NOW)
    with pytest.raises(Conflict):
        keys.update("last", expires_at=NOW, actor="cli", now=NOW)
    assert keys.get("last") == last
    keys.revoke("user", now=NOW, actor="cli")
    keys.update("revoked", name="still revoked", actor="cli", now=NOW)


def test_one_of_two_admin_keys_can_be_revoked(keys: Keys) -> None:
    """An admin key can be revoked while another one is valid."""
    keys.add(key("a", "admin"), actor="cli")
    keys.add(key("b", "admin"), actor="cli")
    keys.revoke("a", now=NOW, actor="b")
    assert keys.count_admins(NOW) == 1


def test_last_use_only_moves_forward(keys: Keys) -> None:
    """An earlier use does not replace a later one, and an unknown key is no error."""
    keys.add(key("a"), actor="cli")
    for at in (50, 70, 60):
        keys.touch("a", at)
    assert keys.get("a").last_used_at == 70
    keys.touch("gone", 1)


def test_a_new_hash_replaces_the_old(keys: Keys) -> None:
    """Replacing the hash of a key changes no other field."""
    before = keys.add(key("a"), actor="cli")
    keys.rehash("a", "new hash")
    after = keys.get("a")
    assert (after.hash, after.name, after.created_at) == ("new hash", before.name, NOW)


def test_a_printed_key_shows_no_hash() -> None:
    """Neither `repr` nor `str` of a key contains its hash or digest."""
    text = repr(key("a", digest="d" * 64)) + str(key("a", digest="d" * 64))
    assert "argon2" not in text
    assert "dddd" not in text


def test_only_changes_are_in_the_audit_trail(keys: Keys, db: Database) -> None:
    """The audit trail says who changed which key and how, without hashes or refusals."""
    keys.add(key("a", "admin"), actor="cli")
    keys.add(key("b"), actor="a")
    keys.update("b", role="admin", actor="a", now=NOW + 1)
    keys.revoke("b", now=NOW + 2, actor="a")
    with pytest.raises(Conflict):
        keys.revoke("a", now=NOW + 3, actor="a")
    keys.revoke("b", now=NOW + 4, actor="a")
    keys.touch("a", NOW)
    entries = Audit(db).list()
    assert [(entry.at, entry.actor, entry.action, entry.target) for entry in entries] == [
        (NOW + 2, "a", "key.revoke", "b"),
        (NOW + 1, "a", "key.update", "b"),
        (NOW, "a", "key.add", "b"),
        (NOW, "cli", "key.add", "a"),
    ]
    assert entries[1].detail == "role=admin"
    assert "argon2" not in str(entries)
    assert [entry.target for entry in Audit(db).list(limit=1, after=entries[0].id)] == ["b"]
