"""``/profiles``: named sets of model, sampling and template."""

from __future__ import annotations

import time
from typing import Annotated, Any

import falcon
import msgspec
from msgspec import Meta, Struct

from llmd.api import body
from llmd.api.access import Access, caller_of
from llmd.api.docs.field_texts import PROFILE_TEXTS
from llmd.api.reply import next_after, send
from llmd.api.route import AFTER, LIMIT, Operation
from llmd.errors import Conflict, ModelInvalid, StoreFull, UnknownProfile
from llmd.models.kinds import check_generates
from llmd.models.library import Library
from llmd.store.profiles import Profile, Profiles, StoredProfile

# Made from the fields of `Profile`, so that a new field is shown without a change here.
ProfileView: type[Struct] = msgspec.defstruct(
    "ProfileView",
    [
        ("name", str),
        ("revision", int),
        ("updated_at", int),
        *(
            (
                field.name,
                Annotated[field.type, Meta(description=PROFILE_TEXTS[field.name]["description"])],
            )
            for field in msgspec.structs.fields(Profile)
        ),
    ],
    namespace={"__doc__": "A profile with its name, its revision and the time of that revision."},
    module=__name__,
    frozen=True,
    kw_only=True,
)


class ProfilePage(Struct, frozen=True, kw_only=True):
    """A page of profiles, in the order of their names."""

    profiles: list[ProfileView]  # type: ignore[valid-type]
    next: str | None


PROFILES = {
    "GET": Operation(
        summary="List the profiles by name",
        access=Access.USER,
        query=(LIMIT, AFTER),
        reply=ProfilePage,
    ),
}
PROFILE = {
    "GET": Operation(
        summary="Show a profile's present revision",
        access=Access.USER,
        reply=ProfileView,
        errors=(UnknownProfile,),
    ),
    "PUT": Operation(
        summary="Make a profile, or replace it with a new revision",
        description="Fields that are left out get their defaults.",
        access=Access.ADMIN,
        body=Profile,
        reply=ProfileView,
        errors=(ModelInvalid, StoreFull),
    ),
    "DELETE": Operation(
        summary="Delete a profile",
        description="The selected profile cannot be deleted.",
        access=Access.ADMIN,
        status=204,
        errors=(UnknownProfile, Conflict, StoreFull),
    ),
}


def _view(stored: StoredProfile) -> Any:
    head = {"name": stored.name, "revision": stored.revision, "updated_at": stored.updated_at}
    return ProfileView(**head, **msgspec.structs.asdict(stored.profile))


class ProfilesResource:
    """All profiles."""

    def __init__(self, profiles: Profiles) -> None:
        self._profiles = profiles

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List the profiles by name."""
        limit = body.limit_of(req)
        page = self._profiles.list(limit=limit, after=body.after_of(req))
        following = next_after(page, limit, lambda stored: stored.name)
        send(resp, ProfilePage(profiles=[_view(stored) for stored in page], next=following))


class ProfileResource:
    """One profile."""

    def __init__(self, profiles: Profiles, library: Library) -> None:
        self._profiles = profiles
        self._library = library

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Show the profile's present revision."""
        send(resp, _view(self._profiles.get(name)))

    def on_put(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Make or replace the profile. Fields that the body leaves out get their defaults."""
        profile = body.read(req, Profile)
        # A profile may be made before its model is there.
        if kind := self._library.kind(profile.model):
            check_generates(profile.model, kind)
        stored = self._profiles.put(name, profile, actor=caller_of(req).id, now=int(time.time()))
        send(resp, _view(stored))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Delete the profile. Its revisions stay, because turns refer to them."""
        self._profiles.delete(name, actor=caller_of(req).id, now=int(time.time()))
        resp.status = falcon.HTTP_204
