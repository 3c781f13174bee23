"""`/auth` and `/keys`: check the caller's key; make, list, change and revoke keys."""

from __future__ import annotations

import time
from typing import Any

import pytest

from llmd.store.audit import Audit
from tests.support.service import Service

FIELDS = {"id", "name", "role", "created_at", "expires_at", "revoked_at", "last_used_at"}


def admin_asks(service: Service, method: str, path: str, body: object = None) -> Any:
    """Send a request with the admin's key."""
    return service.ask(method, path, body, key=service.admin)


def test_a_good_key_is_shown_to_its_owner(service: Service) -> None:
    """`GET /auth` returns the caller's key, and `auth` for the seed's clients."""
    assert service.ask("GET", "/auth").json == {
        "auth": True,
        "id": service.user_key.id,
        "name": "ann",
        "role": "user",
    }


def test_a_bad_key_is_refused(service: Service) -> None:
    """A bad key gets a 401 with the common error body."""
    assert service.code(service.ask("GET", "/auth", key="x")) == (401, "invalid_api_key")


@pytest.mark.parametrize("body", [None, b"", b"{}", b" \n"])
def test_a_key_is_made_without_a_body_too(service: Service, body: bytes | None) -> None:
    """An empty body makes a user's key that never expires, as the seed did."""
    result = admin_asks(service, "POST", "/auth/key", body)
    assert result.status_code == 200
    assert result.headers["cache-control"] == "no-store"
    made = result.json
    assert set(made) == {"key", "id", "name", "role", "expires_at"}
    assert (made["name"], made["role"], made["expires_at"]) == ("unnamed", "user", None)
    assert service.ask("GET", "/auth", key=made["key"]).json["id"] == made["id"]


def test_a_key_is_made_as_asked_for(service: Service) -> None:
    """A key gets the name, role and expiry of the body. The audit trail names the admin."""
    before = int(time.time())
    body = {"name": "bot", "role": "admin", "expires_in": 3600}
    made = admin_asks(service, "POST", "/auth/key", body).json
    assert (made["name"], made["role"]) == ("bot", "admin")
    assert before + 3600 <= made["expires_at"] <= int(time.time()) + 3600
    assert service.ask("GET", "/keys", key=made["key"]).status_code == 200
    entry = Audit(service.db).list()[0]
    assert (entry.actor, entry.target) == (service.admin_key.id, made["id"])


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": 1}, "name"),
        ({"role": "root"}, "role"),
        ({"expires_in": 0}, "expires_in"),
        ({"expires_in": -1}, "expires_in"),
        ({"expires_in": "1d"}, "expires_in"),
        ({"expires_in": 10**12}, "expires_in"),
        ({"expires": 1}, "expires"),
    ],
)
def test_a_key_with_a_wrong_field_is_not_made(
    service: Service, body: dict[str, object], param: str
) -> None:
    """A wrong field is a 422 with its name, and no key is made."""
    num_keys = len(service.keys.list())
    result = admin_asks(service, "POST", "/auth/key", body)
    assert service.code(result) == (422, "invalid_field")
    assert result.json["error"]["param"] == param
    assert len(service.keys.list()) == num_keys


def test_keys_are_listed_without_their_hashes(service: Service) -> None:
    """Keys are listed page by page without their hashes. `next` is null on the last page."""
    pages: list[list[str]] = []
    after = None
    while not pages or after is not None:
        query = f"limit=2&after={after}" if after else "limit=2"
        page = service.ask("GET", "/keys", key=service.admin, query_string=query).json
        assert all(set(key) == FIELDS for key in page["keys"])
        pages.append([key["id"] for key in page["keys"]])
        after = page["next"]
    listed = [key_id for page in pages for key_id in page]
    assert sorted(listed) == sorted(key.id for key in service.keys.list())
    assert [len(page) for page in pages] == [2, 1]


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=1001", "after=nobody"])
def test_a_wrong_page_is_refused(service: Service, query: str) -> None:
    """A wrong `limit` or `after` is refused."""
    result = service.ask("GET", "/keys", key=service.admin, query_string=query)
    assert service.code(result) == (422, "invalid_field")


def test_a_key_is_shown_and_changed(service: Service) -> None:
    """A change affects only the fields in the body, and null removes the expiry."""
    path = f"/keys/{service.user_key.id}"
    shown = admin_asks(service, "GET", path).json
    assert set(shown) == FIELDS
    assert shown["name"] == "ann"
    changed = admin_asks(service, "PATCH", path, {"name": "anna", "expires_at": 2**33}).json
    assert (changed["name"], changed["role"], changed["expires_at"]) == ("anna", "user", 2**33)
    changed = admin_asks(service, "PATCH", path, {"role": "admin", "expires_at": None}).json
    assert (changed["name"], changed["role"], changed["expires_at"]) == ("anna", "admin", None)
    assert admin_asks(service, "PATCH", path, {}).json == changed
    assert admin_asks(service, "GET", path).json == changed


@pytest.mark.parametrize(
    "body", [{"name": ""}, {"name": None}, {"role": "x"}, {"expires_at": -1}, {"hash": "x"}, []]
)
def test_a_wrong_change_of_a_key_is_refused(service: Service, body: object) -> None:
    """A wrong change of a key is refused, and nothing changes."""
    path = f"/keys/{service.user_key.id}"
    before = service.keys.get(service.user_key.id)
    assert service.code(admin_asks(service, "PATCH", path, body)) == (422, "invalid_field")
    assert service.keys.get(service.user_key.id).name == before.name


def test_a_revoked_key_opens_nothing_and_is_forgotten_by_the_engine(service: Service) -> None:
    """A revoked key is refused and the engine forgets its states. Revoking twice is no error."""
    path = f"/keys/{service.user_key.id}"
    assert service.ask("GET", "/auth").status_code == 200
    result = admin_asks(service, "DELETE", path)
    assert (result.status_code, result.content) == (204, b"")
    assert service.ask("GET", "/auth").status_code == 401
    assert service.engine.forgotten == [(service.user_key.id, None)]
    revoked_at = admin_asks(service, "GET", path).json["revoked_at"]
    assert revoked_at is not None
    assert admin_asks(service, "DELETE", path).status_code == 204
    assert admin_asks(service, "GET", path).json["revoked_at"] == revoked_at


def test_the_last_admin_key_can_neither_be_revoked_nor_made_a_users(service: Service) -> None:
    """The last admin key cannot be revoked, expired or made a user's key."""
    path = f"/keys/{service.admin_key.id}"
    past = {"expires_at": 1}
    assert service.code(admin_asks(service, "DELETE", path)) == (409, "conflict")
    assert service.code(admin_asks(service, "PATCH", path, {"role": "user"})) == (409, "conflict")
    assert service.code(admin_asks(service, "PATCH", path, past)) == (409, "conflict")
    assert service.engine.forgotten == []
    service.issue("second", "admin")
    assert admin_asks(service, "DELETE", path).status_code == 204


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_an_unknown_key_is_not_found(service: Service, method: str) -> None:
    """An unknown key is a 404 for each method, whatever its id looks like."""
    for key_id in ("0" * 12, "%00", "a'b", "x" * 300):
        body = {"name": "x"} if method == "PATCH" else None
        result = admin_asks(service, method, f"/keys/{key_id}", body)
        assert service.code(result) == (404, "key_not_found")
