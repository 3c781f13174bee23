"""Profiles: a model with its sampling, template and system text. Every revision is kept."""

from __future__ import annotations

import builtins
import math
import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from sqlalchemy import Select, insert, select, update

from llmd.codecs import Codec
from llmd.errors import Conflict, InvalidField, SchemaError, UnknownProfile
from llmd.store import audit, settings, tables
from llmd.store.db import Database, Tx, is_storable, page_size

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MODEL = re.compile(r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*\.gguf")

_LongText = Annotated[str, Meta(max_length=65536)]
_Label = Annotated[str, Meta(min_length=1, max_length=64)]
_Stop = Annotated[str, Meta(min_length=1, max_length=128)]


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to prompt a model. The API, files of the CLI and the database all use this form.

    An empty `model` stands for the model that is loaded. A `top_k` of 0 turns it off. Decoding
    checks every bound. The constructor runs only `__post_init__`, which raises ValueError; msgspec
    reports that with the path of the field.
    """

    model: Annotated[str, Meta(max_length=255)] = ""
    system: _LongText = ""
    template: _LongText | None = None
    human_label: _Label = "Human"
    ai_label: _Label = "AI"
    history_turns: Annotated[int, Meta(ge=0, le=1000)] = 5
    n_ctx: Annotated[int, Meta(ge=64, le=2**31 - 1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=1_000_000)] = 512
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.7
    top_p: Annotated[float, Meta(gt=0, le=1)] = 0.95
    top_k: Annotated[int, Meta(ge=0, le=100_000)] = 40
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.05
    repeat_penalty: Annotated[float, Meta(ge=0.1, le=10)] = 1.0
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    seed: Annotated[int, Meta(ge=0, le=2**32 - 2)] | None = None
    stop: Annotated[tuple[_Stop, ...], Meta(max_length=8)] = ()

    def __post_init__(self) -> None:
        texts = {name: getattr(self, name) for name in ("model", "system", "template")}
        texts |= {"human_label": self.human_label, "ai_label": self.ai_label}
        texts["stop"] = "".join(self.stop)
        for field, text in texts.items():
            if text is not None and not is_storable(text):
                raise ValueError(f"{field} must hold neither NUL nor half of a surrogate pair")
        for field in _FLOATS:
            if not math.isfinite(getattr(self, field)):
                raise ValueError(f"{field} must be a finite number")
        for field in ("human_label", "ai_label"):
            if not texts[field] or "\n" in texts[field] or "\r" in texts[field]:
                raise ValueError(f"{field} must be a single line of text, not empty")
        if self.model and not _MODEL.fullmatch(self.model):
            raise ValueError("model must be empty or a plain file name that ends in .gguf")
        if self.template is not None:
            # All other braces in a template are literal.
            if self.template.count("{input}") != 1:
                raise ValueError("template must contain {input} exactly once")
            if self.template.count("{chat_history}") > 1:
                raise ValueError("template must contain {chat_history} at most once")


_FLOATS = (
    "temperature",
    "top_p",
    "min_p",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
)


_PROFILES: Codec[Profile] = Codec(Profile)


class StoredProfile(msgspec.Struct, frozen=True, kw_only=True):
    """A stored revision of a profile."""

    name: str
    revision: int
    profile: Profile
    updated_at: int


def read_profile(value: object) -> Profile:
    """Convert a decoded JSON or TOML object to a profile, or raise InvalidField."""
    try:
        return _PROFILES.convert(value)
    except msgspec.ValidationError as error:
        raise InvalidField.from_validation(str(error)) from error


def check_name(name: str) -> str:
    """Return `name`, or raise InvalidField if it is not a valid name for a profile."""
    if not _NAME.fullmatch(name):
        raise InvalidField(
            "a profile name must be 1 to 64 of A-Z a-z 0-9 . _ - and begin with a letter or digit",
            param="profile",
        )
    return name


def _current() -> Select[Any]:
    """Return a query for the present revision of each profile that is not deleted."""
    heads, bodies = tables.profiles, tables.profile_revisions
    same = (heads.c.name == bodies.c.name) & (heads.c.revision == bodies.c.revision)
    return select(bodies).join_from(bodies, heads, same).where(heads.c.deleted_at.is_(None))


def _stored(row: Any) -> StoredProfile:
    try:
        profile = _PROFILES.decode_json(row.body)
    except msgspec.MsgspecError as error:
        raise SchemaError(
            f"the profile {row.name} in the database cannot be read: {error}"
        ) from error
    return StoredProfile(
        name=row.name, revision=row.revision, profile=profile, updated_at=row.created_at
    )


def _find(tx: Tx, query: Select[Any], name: str) -> StoredProfile:
    row = tx.execute(query).one_or_none()
    if row is None:
        # A name that is not valid is not repeated: it may be long or unprintable.
        shown = name if _NAME.fullmatch(name) else "of this name"
        raise UnknownProfile(f"no profile {shown}: see the list of profiles", param="profile")
    return _stored(row)


def put(tx: Tx, name: str, profile: Profile, *, actor: str, now: int) -> StoredProfile:
    """Run `Profiles.put` within `tx`."""
    check_name(name)
    # The constructor does not check bounds, but a stored profile must be readable again.
    profile = read_profile(msgspec.to_builtins(profile))
    heads, bodies = tables.profiles, tables.profile_revisions
    head = tx.execute(select(heads).where(heads.c.name == name)).one_or_none()
    number = 1
    if head is not None:
        same = (bodies.c.name == name) & (bodies.c.revision == head.revision)
        before = _stored(tx.execute(select(bodies).where(same)).one())
        if before.profile == profile and head.deleted_at is None:
            return before
        number = head.revision + 1
        change = {"revision": number, "deleted_at": None}
        tx.execute(update(heads).where(heads.c.name == name).values(change))
    else:
        tx.execute(insert(heads).values(name=name, revision=number))
    body = msgspec.json.encode(profile).decode()
    tx.execute(insert(bodies).values(name=name, revision=number, body=body, created_at=now))
    detail = f"revision {number}"
    audit.record(tx, at=now, actor=actor, action="profile.put", target=name, detail=detail)
    return StoredProfile(name=name, revision=number, profile=profile, updated_at=now)


class Profiles:
    """Stores the profiles by name. A revision is never changed or removed."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def get(self, name: str) -> StoredProfile:
        """Return the present revision of `name`, or raise UnknownProfile."""
        with self._db.read() as tx:
            return _find(tx, _current().where(tables.profiles.c.name == name), name)

    def revision(self, name: str, number: int) -> StoredProfile:
        """Return a revision, even of a deleted profile, or raise UnknownProfile."""
        bodies = tables.profile_revisions
        wanted = (bodies.c.name == name) & (bodies.c.revision == number)
        with self._db.read() as tx:
            return _find(tx, select(bodies).where(wanted), name)

    def list(self, *, limit: int = 100, after: str | None = None) -> builtins.list[StoredProfile]:
        """Return profiles sorted by name. `after` is the last name of the previous page."""
        query = _current().order_by(tables.profiles.c.name).limit(page_size(limit))
        if after is not None:
            query = query.where(tables.profiles.c.name > after)
        with self._db.read() as tx:
            return [_stored(row) for row in tx.execute(query)]

    def put(self, name: str, profile: Profile, *, actor: str, now: int) -> StoredProfile:
        """Store `profile` as a new revision, unless it equals the present one.

        Raise InvalidField for a bad name, or for a field out of bounds.
        """
        with self._db.write() as tx:
            return put(tx, name, profile, actor=actor, now=now)

    def delete(self, name: str, *, actor: str, now: int) -> None:
        """Delete a profile. Its revisions stay readable, because turns refer to them.

        Raise UnknownProfile, or Conflict if it is the selected profile.
        """
        heads = tables.profiles
        with self._db.write() as tx:
            _find(tx, _current().where(heads.c.name == name), name)
            if settings.selection(tx).profile == name:
                raise Conflict(f"the profile {name} is selected: select another one first")
            tx.execute(update(heads).where(heads.c.name == name).values(deleted_at=now))
            audit.record(tx, at=now, actor=actor, action="profile.delete", target=name)
