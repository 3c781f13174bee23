"""The names that clients may use for a model: those of profiles and of GGUF files."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from llmd.engine.engine import Engine
from llmd.errors import Conflict, UnknownModel, UnknownProfile, printable
from llmd.models.kinds import check_generates
from llmd.models.library import Library
from llmd.store.profiles import Profile, Profiles, StoredProfile
from llmd.store.settings import Settings

_PAGE = 1000
"""How many profiles are read from the store at once."""


class ModelName(Struct, frozen=True, kw_only=True):
    """A name that a client may use. `created_at` is in Unix seconds."""

    id: str
    created_at: int


class ModelNames:
    """Find the profile for the name of a model."""

    def __init__(
        self, engine: Engine, profiles: Profiles, settings: Settings, library: Library
    ) -> None:
        self._engine = engine
        self._profiles = profiles
        self._settings = settings
        self._library = library

    def list(self) -> list[ModelName]:
        """Return the names of all profiles, then those of the GGUF files, each sorted by name."""
        ids = {
            stored.name: ModelName(id=stored.name, created_at=stored.updated_at)
            for stored in self._all_profiles()
        }
        for file in self._library.list():
            ids.setdefault(file.name, ModelName(id=file.name, created_at=file.modified_at))
        return list(ids.values())

    def get(self, name: str) -> ModelName:
        """Return a name from `list`. Raise `UnknownModel`."""
        for found in self.list():
            if found.id == name:
                return found
        raise _unknown(name)

    def selected(self) -> StoredProfile:
        """Return the profile for requests that name none."""
        return self._profiles.get(self._settings.selection().profile)

    def profile(self, name: str) -> StoredProfile:
        """Return a profile whose model is loaded. Raise `UnknownProfile` or `Conflict`."""
        stored = self._profiles.get(name)
        wanted = stored.profile.model
        selected = self._settings.selection().profile
        if stored.name != selected and wanted not in ("", self._engine.model):
            raise Conflict(
                f"the profile {stored.name} is for {wanted}, but {self._loaded} is loaded: "
                f"an admin can load {wanted} with POST /models/model",
                param="profile",
            )
        return stored

    def resolve(self, name: str) -> StoredProfile:
        """Return the profile for the name of a model. Never choose another model.

        For the name of a file, return the selected profile, or the default values if the selected
        profile is for another file. Raise `UnknownModel`, `ModelInvalid` if the file generates no
        text, or `Conflict` if the model is not loaded.
        """
        try:
            return self.profile(name)
        except Conflict as error:
            raise Conflict(error.message, param="model") from None
        except UnknownProfile:
            pass
        if all(file.name != name for file in self._library.list()):
            raise _unknown(name)
        if name != self._engine.model:
            if kind := self._library.kind(name):
                check_generates(name, kind)
            raise Conflict(
                f"{name} is not loaded, {self._loaded} is: "
                f"an admin can load {name} with POST /models/model",
                param="model",
            )
        stored = self.selected()
        if stored.profile.model in ("", name):
            return stored
        return StoredProfile(name="", revision=0, profile=Profile(), updated_at=0)

    @property
    def _loaded(self) -> str:
        return self._engine.model or "no model"

    def _all_profiles(self) -> Iterator[StoredProfile]:
        after: str | None = None
        while page := self._profiles.list(limit=_PAGE, after=after):
            yield from page
            after = page[-1].name


def _unknown(name: str) -> UnknownModel:
    return UnknownModel(
        f"there is no model {printable(name)}: GET /v1/models lists the models", param="model"
    )
