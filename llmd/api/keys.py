"""``/auth`` and ``/keys``: check the caller's key; make, list, change and revoke keys."""

from __future__ import annotations

import time
from typing import Annotated, Literal

import falcon
from msgspec import UNSET, Meta, Struct, UnsetType

from llmd.api import body
from llmd.api.access import Access, caller_of
from llmd.api.reply import next_after, send
from llmd.api.route import AFTER, LIMIT, Operation
from llmd.chat.key_issue import KeyIssuer
from llmd.codecs import Codec
from llmd.engine.engine import Engine
from llmd.errors import Conflict, StoreFull, UnknownKey
from llmd.store.keys import MAX_NAME_CHARS, Key, Keys, Role

MAX_EXPIRES_IN_S = 100 * 366 * 86_400
"""The longest life of a new key, in seconds: a hundred years."""

# The store checks the name, with a clearer error than msgspec's.
_Name = Annotated[
    str,
    Meta(
        description=f"1 to {MAX_NAME_CHARS} printable characters.",
        examples=["laptop"],
        extra_json_schema={"minLength": 1, "maxLength": MAX_NAME_CHARS},
    ),
]


class NewKeyBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The properties of a new key."""

    name: _Name = "unnamed"
    role: Role = "user"
    expires_in: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_EXPIRES_IN_S)] | None,
        Meta(description="After how many seconds the key expires; null: never."),
    ] = None


class KeyChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The changes of a key. Fields that are left out keep their values."""

    name: _Name | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    expires_at: Annotated[
        Annotated[int, Meta(ge=0, le=2**40)] | UnsetType | None,
        Meta(description="When the key expires, in Unix seconds; null: never."),
    ] = UNSET


class KeyView(Struct, frozen=True, kw_only=True):
    """A key without its hash. Times are Unix seconds."""

    id: str
    name: str
    role: Role
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None


_VIEWS: Codec[KeyView] = Codec(KeyView)


class KeyPage(Struct, frozen=True, kw_only=True):
    """A page of keys, in the order in which they were made."""

    keys: list[KeyView]
    next: str | None


class NewKeyView(Struct, frozen=True, kw_only=True):
    """A new key. This is the only time that it is shown."""

    key: str
    id: str
    name: str
    role: Role
    expires_at: int | None


class CallerView(Struct, frozen=True, kw_only=True):
    """The key that the request came with."""

    auth: Literal[True] = True
    id: str
    name: str
    role: str


AUTH = {
    "GET": Operation(summary="Check the caller's key", access=Access.USER, reply=CallerView),
}
AUTH_KEY = {
    "POST": Operation(
        summary="Make a key, and show it this once",
        description="Without a body the key has the role `user` and never expires.",
        access=Access.ADMIN,
        body=NewKeyBody,
        body_optional=True,
        reply=NewKeyView,
        errors=(StoreFull,),
    ),
}
KEYS = {
    "GET": Operation(
        summary="List all keys, without their secrets",
        access=Access.ADMIN,
        query=(LIMIT, AFTER),
        reply=KeyPage,
    ),
}
KEY = {
    "GET": Operation(
        summary="Show a key, without its secret",
        access=Access.ADMIN,
        reply=KeyView,
        errors=(UnknownKey,),
    ),
    "PATCH": Operation(
        summary="Change a key's name, role or expiry",
        access=Access.ADMIN,
        body=KeyChange,
        reply=KeyView,
        errors=(UnknownKey, Conflict, StoreFull),
    ),
    "DELETE": Operation(
        summary="Revoke a key permanently",
        description="The last admin key cannot be revoked.",
        access=Access.ADMIN,
        status=204,
        errors=(UnknownKey, Conflict, StoreFull),
    ),
}


def _view(key: Key) -> KeyView:
    return _VIEWS.convert(key, from_attributes=True)


class AuthResource:
    """The caller's own key."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Show the caller's key. A key that is not valid was refused before."""
        caller = caller_of(req)
        send(resp, CallerView(id=caller.id, name=caller.name, role=caller.role))


class AuthKeyResource:
    """The resource that makes keys."""

    def __init__(self, issuer: KeyIssuer) -> None:
        self._issuer = issuer

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Make a key, and show it this once. An empty body makes a user's key."""
        wanted = body.read(req, NewKeyBody, empty=NewKeyBody())
        key, text = self._issuer.issue(
            wanted.name,
            wanted.role,
            expires_in_s=wanted.expires_in,
            actor=caller_of(req).id,
            now=int(time.time()),
        )
        resp.set_header("Cache-Control", "no-store")
        view = NewKeyView(
            key=text, id=key.id, name=key.name, role=key.role, expires_at=key.expires_at
        )
        send(resp, view)


class KeysResource:
    """All keys."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List the keys, without their hashes."""
        limit = body.limit_of(req)
        keys = self._keys.list(limit=limit, after=body.after_of(req))
        following = next_after(keys, limit, lambda key: key.id)
        send(resp, KeyPage(keys=[_view(key) for key in keys], next=following))


class KeyResource:
    """One key."""

    def __init__(self, keys: Keys, engine: Engine) -> None:
        self._keys = keys
        self._engine = engine

    def on_get(self, req: falcon.Request, resp: falcon.Response, key_id: str) -> None:
        """Show the key, without its hash."""
        send(resp, _view(self._keys.get(key_id)))

    def on_patch(self, req: falcon.Request, resp: falcon.Response, key_id: str) -> None:
        """Change the key's name, role or expiry."""
        change = body.read(req, KeyChange)
        key = self._keys.update(
            key_id,
            name=change.name,
            role=change.role,
            expires_at=change.expires_at,
            actor=caller_of(req).id,
            now=int(time.time()),
        )
        send(resp, _view(key))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, key_id: str) -> None:
        """Revoke the key permanently. Its row stays, for the audit trail."""
        self._keys.revoke(key_id, now=int(time.time()), actor=caller_of(req).id)
        self._engine.forget(key_id)
        resp.status = falcon.HTTP_204
