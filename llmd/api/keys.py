"""``/auth`` and ``/keys``: is my key good; make, list, change and revoke keys."""

from __future__ import annotations

import time
from typing import Annotated, Literal

import falcon
import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from llmd.api import body
from llmd.api.access import Access, caller_of
from llmd.api.reply import next_after, send
from llmd.api.route import AFTER, LIMIT, Operation
from llmd.chat.key_issue import KeyIssuer
from llmd.engine.engine import Engine
from llmd.errors import Conflict, StoreFull, UnknownKey
from llmd.store.keys import MAX_NAME_CHARS, Key, Keys, Role

MAX_EXPIRES_IN_S = 100 * 366 * 86_400

# The store checks it, in words that tell more.
_Name = Annotated[
    str,
    Meta(
        description=f"1 to {MAX_NAME_CHARS} printable characters.",
        examples=["laptop"],
        extra_json_schema={"minLength": 1, "maxLength": MAX_NAME_CHARS},
    ),
]


class NewKeyBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a new key shall be."""

    name: _Name = "unnamed"
    role: Role = "user"
    expires_in: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_EXPIRES_IN_S)] | None,
        Meta(description="In how many seconds it expires; null: never."),
    ] = None


class KeyChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What shall change of a key: the fields that are left out stay."""

    name: _Name | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    expires_at: Annotated[
        Annotated[int, Meta(ge=0, le=2**40)] | UnsetType | None,
        Meta(description="When it expires, in Unix seconds; null: never."),
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


class KeyPage(Struct, frozen=True, kw_only=True):
    """A page of keys, in the order of their making."""

    keys: list[KeyView]
    next: str | None


class NewKeyView(Struct, frozen=True, kw_only=True):
    """A new key, shown this once."""

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
    "GET": Operation(summary="Tell whether a key is good", access=Access.USER, reply=CallerView),
}
AUTH_KEY = {
    "POST": Operation(
        summary="Make a key, which is shown this once",
        description="Without a body it is a user's and never expires.",
        access=Access.ADMIN,
        body=NewKeyBody,
        body_optional=True,
        reply=NewKeyView,
        errors=(StoreFull,),
    ),
}
KEYS = {
    "GET": Operation(
        summary="List all keys, without the keys themselves",
        access=Access.ADMIN,
        query=(LIMIT, AFTER),
        reply=KeyPage,
    ),
}
KEY = {
    "GET": Operation(
        summary="Show what is known of a key",
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
        summary="Revoke a key for good",
        description="Not the last admin key.",
        access=Access.ADMIN,
        status=204,
        errors=(UnknownKey, Conflict, StoreFull),
    ),
}


def _view(key: Key) -> KeyView:
    return msgspec.convert(key, KeyView, from_attributes=True)


class AuthResource:
    """Tell a client that its key is good."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer; a bad key never comes here."""
        caller = caller_of(req)
        send(resp, CallerView(id=caller.id, name=caller.name, role=caller.role))


class AuthKeyResource:
    """Make a key."""

    def __init__(self, issuer: KeyIssuer) -> None:
        self._issuer = issuer

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Show the new key, this once. An empty body makes a user's key."""
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
        """List them, without their hashes."""
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
        """Show it, without its hash."""
        send(resp, _view(self._keys.get(key_id)))

    def on_patch(self, req: falcon.Request, resp: falcon.Response, key_id: str) -> None:
        """Change its name, role or expiry."""
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
        """Revoke it for good; its row stays, for the audit."""
        self._keys.revoke(key_id, now=int(time.time()), actor=caller_of(req).id)
        self._engine.forget(key_id)
        resp.status = falcon.HTTP_204
