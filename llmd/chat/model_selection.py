"""The selected model and profile, which serve requests that name none."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from llmd.engine.engine import Engine
from llmd.engine.model import Model
from llmd.errors import InvalidField, LlmdError
from llmd.models.library import Library
from llmd.store.profiles import Profiles
from llmd.store.settings import Selection, Settings

log = logging.getLogger(__name__)


class ModelSelector:
    """Load the selected model at the start, and switch to another model or profile."""

    def __init__(
        self,
        engine: Engine,
        library: Library,
        profiles: Profiles,
        settings: Settings,
        *,
        default_model: str,
        embedder: Engine | None = None,
        embedding_model: str = "",
        now: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._library = library
        self._profiles = profiles
        self._settings = settings
        self._default_model = default_model
        self._embedder = embedder
        self._embedding_model = embedding_model
        self._now = now

    def start(self) -> None:
        """Begin to load the selected model. If there is none, tell the engine the reason."""
        try:
            name = self._first_model()
            model = self._checked(name, self._library.check_generates)
        except LlmdError as error:
            log.error("no model is loaded: %s", error.message)
            self._engine.start_without(error.message)
        else:
            self._engine.start(model)
        self._start_embedder()

    def start_missing(self) -> None:
        """Begin to load the selected model if none is loaded yet."""
        if self._engine.model is None:
            self.start()
        else:
            self._start_embedder()

    def _start_embedder(self) -> None:
        """Begin to load the embedding model, if one is configured and not loaded yet."""
        if self._embedder is None or self._embedder.model is not None:
            return
        try:
            model = self._checked(self._embedding_model, self._library.check_embeds)
            self._embedder.start(model)
        except LlmdError as error:
            log.error("no embedding model is loaded: %s", error.message)
            self._embedder.start_without(error.message)

    def select(self, model: str | None, profile: str | None, *, actor: str) -> Selection:
        """Load a model and select a profile. With None, keep the current profile or model.

        Return when the model is ready. Raise `UnknownModel`, `UnknownProfile`, `ModelInvalid` or
        `Conflict`; after an error nothing has changed.
        """
        chosen_profile = profile or self._settings.selection().profile
        stored = self._profiles.get(chosen_profile)
        name = model or stored.profile.model or self._engine.model
        if name is None:
            raise InvalidField("name a model, because none is loaded", param="model")
        selection = Selection(model=name, profile=chosen_profile)

        def commit() -> None:
            self._settings.select(
                model=name, profile=chosen_profile, actor=actor, now=int(self._now())
            )

        self._engine.switch(self._checked(name, self._library.check_generates), commit)
        log.info("selected the model %s with the profile %s", name, chosen_profile)
        return selection

    def _first_model(self) -> str:
        """Return the first model that is set: selected, the profile's, the default, or any."""
        selection = self._settings.selection()
        if selection.model:
            return selection.model
        try:
            of_profile = self._profiles.get(selection.profile).profile.model
        except LlmdError:
            of_profile = ""
        if of_profile or self._default_model:
            return of_profile or self._default_model
        return self._library.first()

    def _checked(self, name: str, check: Callable[[str], object]) -> Model:
        """Return a model whose file is complete, and of the right kind, as its header shows."""
        file = self._library.find(name)
        check(name)
        return Model(file.name, str(file.path), check=lambda: check(name))
