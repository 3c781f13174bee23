"""``/auth`` and ``/keys``: is my key good; make, list, change and revoke keys."""

from __future__ import annotations

import time
from typing import Annotated

import falcon
import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from llmd.api import body
from llmd.api.access import caller_of
from llmd.api.reply import send, send_page
from llmd.chat.key_issue import KeyIssuer
from llmd.engine.engine import Engine
from llmd.store.keys import Key, Keys, Role

MAX_EXPIRES_IN_S = 100 * 366 * 86_400


class NewKeyBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a new key shall be. `expires_in` is in seconds; null: never."""

    name: str = "unnamed"
    role: Role = "user"
    expires_in: Annotated[int, Meta(ge=1, le=MAX_EXPIRES_IN_S)] | None = None


class KeyChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What shall change of a key. `expires_at` is in Unix seconds; null: never."""

    name: str | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    expires_at: Annotated[int, Meta(ge=0, le=2**40)] | UnsetType | None = UNSET


class KeyView(Struct, frozen=True, kw_only=True):
    """A key without its hash."""

    id: str
    name: str
    role: Role
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None


def _view(key: Key) -> KeyView:
    return msgspec.convert(key, KeyView, from_attributes=True)


class AuthResource:
    """Tell a client that its key is good."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer; a bad key never comes here."""
        caller = caller_of(req)
        send(resp, {"auth": True, "id": caller.id, "name": caller.name, "role": caller.role})


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
        send(
            resp,
            {
                "key": text,
                "id": key.id,
                "name": key.name,
                "role": key.role,
                "expires_at": key.expires_at,
            },
        )


class KeysResource:
    """All keys."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List them, without their hashes."""
        limit = body.limit_of(req)
        keys = self._keys.list(limit=limit, after=body.after_of(req))
        send_page(resp, "keys", [_view(key) for key in keys], limit, keys[-1].id if keys else None)


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
