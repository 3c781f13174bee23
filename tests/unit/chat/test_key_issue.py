"""Creating API keys."""

from __future__ import annotations

import pytest

from llmd.auth.secret import Hasher, parse
from llmd.errors import InvalidField
from llmd.store.audit import Audit
from tests.support.service import Service


def test_a_key_is_shown_once_and_stored_as_its_hash(service: Service) -> None:
    """The text of the key matches the stored hash and is not stored itself."""
    key, text = service.issuer.issue("ann", "user", expires_in_s=None, actor="boss", now=100)
    parsed = parse(text)
    assert parsed is not None
    assert parsed.id == key.id
    stored = service.keys.get(key.id)
    assert stored == key
    assert Hasher("cheapest").verify(stored.hash, text)
    assert text.split("_")[2] not in stored.hash
    assert (stored.name, stored.role, stored.created_at) == ("ann", "user", 100)


def test_a_key_expires_so_many_seconds_after_it_was_made(service: Service) -> None:
    """A key expires `expires_in_s` seconds after its creation, or never with None."""
    issue = service.issuer.issue
    assert issue("a", "user", expires_in_s=60, actor="boss", now=100)[0].expires_at == 160
    assert issue("a", "user", expires_in_s=None, actor="boss", now=100)[0].expires_at is None


def test_a_bad_name_makes_no_key(service: Service) -> None:
    """A key with an invalid name is not stored."""
    num_keys = len(service.keys.list())
    with pytest.raises(InvalidField):
        service.issuer.issue("", "user", expires_in_s=None, actor="boss", now=100)
    assert len(service.keys.list()) == num_keys


def test_the_trail_tells_who_made_a_key(service: Service) -> None:
    """The audit log has the ID of the new key but not its text."""
    key, text = service.issuer.issue("ann", "admin", expires_in_s=None, actor="boss", now=100)
    entry = Audit(service.db).list()[0]
    assert (entry.actor, entry.action, entry.target) == ("boss", "key.add", key.id)
    assert text not in repr(entry)
