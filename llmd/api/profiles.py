"""``/profiles``: how to ask a model."""

from __future__ import annotations

import time
from typing import Any

import falcon
import msgspec

from llmd.api import body
from llmd.api.access import caller_of
from llmd.api.reply import send, send_page
from llmd.store.profiles import Profile, Profiles, StoredProfile


def _view(stored: StoredProfile) -> dict[str, Any]:
    head = {"name": stored.name, "revision": stored.revision, "updated_at": stored.updated_at}
    return head | msgspec.structs.asdict(stored.profile)


class ProfilesResource:
    """All profiles."""

    def __init__(self, profiles: Profiles) -> None:
        self._profiles = profiles

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List them by name."""
        limit = body.limit_of(req)
        page = self._profiles.list(limit=limit, after=body.after_of(req))
        last = page[-1].name if page else None
        send_page(resp, "profiles", [_view(stored) for stored in page], limit, last)


class ProfileResource:
    """One profile."""

    def __init__(self, profiles: Profiles) -> None:
        self._profiles = profiles

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Show its present revision."""
        send(resp, _view(self._profiles.get(name)))

    def on_put(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Make it, or replace it by a new revision; what the body leaves out gets its default."""
        profile = body.read(req, Profile)
        stored = self._profiles.put(name, profile, actor=caller_of(req).id, now=int(time.time()))
        send(resp, _view(stored))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Delete it; its revisions stay for the turns that name them."""
        self._profiles.delete(name, actor=caller_of(req).id, now=int(time.time()))
        resp.status = falcon.HTTP_204
