"""The names of models, and the profile that each name stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmd.chat import model_names
from llmd.chat.model_names import ModelName, ModelNames
from llmd.errors import Conflict, UnknownModel, UnknownProfile
from llmd.models.library import Library
from llmd.store.db import Database
from llmd.store.profiles import Profile, Profiles
from llmd.store.settings import Settings
from tests.support import gguf_file
from tests.support.fake_engine import FakeEngine


class Setup:
    """A database with the profile `default`, a loaded model and another model."""

    def __init__(self, db: Database, folder: Path) -> None:
        self.folder = folder
        self.engine = FakeEngine("loaded.gguf")
        self.profiles, self.settings = Profiles(db), Settings(db)
        self.model_names = ModelNames(self.engine, self.profiles, self.settings, Library(folder))
        for name in ("loaded.gguf", "other.gguf"):
            self.add(name)
        self.put("default", at=5)

    def add(self, name: str) -> int:
        """Put a file into the folder. Return the time of its last change."""
        file = self.folder / name
        file.write_bytes(gguf_file.build())
        return int(file.stat().st_mtime)

    def put(self, name: str, model: str = "", at: int = 0) -> None:
        self.profiles.put(name, Profile(model=model), actor="cli", now=at)

    def select(self, profile: str) -> None:
        self.settings.select(model=None, profile=profile, actor="cli", now=0)

    def names(self) -> list[str]:
        return [found.id for found in self.model_names.list()]


@pytest.fixture
def setup(db: Database, tmp_path: Path) -> Setup:
    """Provide the names of two models and one profile."""
    folder = tmp_path / "models"
    folder.mkdir()
    return Setup(db, folder)


# The list


def test_profiles_come_first_then_files(setup: Setup) -> None:
    """Profiles come first and then files, each sorted by name."""
    setup.put("brief")
    setup.put("zoo", model="other.gguf")
    setup.add("A.gguf")
    assert setup.names() == ["brief", "default", "zoo", "A.gguf", "loaded.gguf", "other.gguf"]


def test_each_has_the_time_of_its_making(setup: Setup) -> None:
    """A profile has the time of its revision, a file that of its last change."""
    made = setup.add("new.gguf")
    found = {model.id: model.created_at for model in setup.model_names.list()}
    assert (found["default"], found["new.gguf"]) == (5, made)


def test_a_name_is_listed_once(setup: Setup) -> None:
    """If a profile has the name of a file, the name is listed once and means the profile."""
    setup.put("loaded.gguf", at=7)
    assert setup.names() == ["default", "loaded.gguf", "other.gguf"]
    assert setup.model_names.get("loaded.gguf") == ModelName(id="loaded.gguf", created_at=7)


def test_there_may_be_more_profiles_than_a_page_of_the_store(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All profiles are listed, even if they fill several pages of the store."""
    monkeypatch.setattr(model_names, "_PAGE", 2)
    names = [f"p{number}" for number in range(5)]
    for name in names:
        setup.put(name)
    assert setup.names() == ["default", *names, "loaded.gguf", "other.gguf"]


def test_what_is_deleted_is_not_listed(setup: Setup) -> None:
    """Deleted profiles and files are neither listed nor found."""
    setup.put("brief")
    setup.profiles.delete("brief", actor="cli", now=0)
    (setup.folder / "other.gguf").unlink()
    assert setup.names() == ["default", "loaded.gguf"]
    for name in ("brief", "other.gguf"):
        with pytest.raises(UnknownModel):
            setup.model_names.get(name)


@pytest.mark.parametrize("name", ["default", "loaded.gguf", "other.gguf"])
def test_all_that_is_listed_can_be_looked_up(setup: Setup, name: str) -> None:
    """Every listed name can be looked up, whether its model is loaded or not."""
    assert setup.model_names.get(name) in setup.model_names.list()


@pytest.mark.parametrize("name", ["", "nobody", "Default", "loaded", "../models/loaded.gguf"])
def test_what_is_not_listed_is_unknown(setup: Setup, name: str) -> None:
    """A name must match exactly."""
    for look_up in (setup.model_names.get, setup.model_names.resolve):
        with pytest.raises(UnknownModel) as caught:
            look_up(name)
        assert caught.value.param == "model"


def test_an_unknown_name_is_safe_to_show(setup: Setup) -> None:
    """An unknown name is shortened and made printable in the error."""
    with pytest.raises(UnknownModel) as caught:
        setup.model_names.resolve("a\n\x1b[31m" + "b" * 100)
    assert caught.value.message.isprintable()
    assert "b" * 65 not in caught.value.message


# Which profile answers


@pytest.mark.parametrize("model", ["", "loaded.gguf"])
def test_a_profile_answers_under_its_name(setup: Setup, model: str) -> None:
    """A profile can be used if it is for the loaded model or for any model."""
    setup.put("brief", model=model)
    stored = setup.model_names.resolve("brief")
    assert (stored.name, stored.revision, stored.profile.model) == ("brief", 1, model)
    assert setup.model_names.profile("brief") == stored


def test_a_profile_for_another_model_is_a_conflict(setup: Setup) -> None:
    """The error names both models and the route that loads one."""
    setup.put("brief", model="other.gguf")
    for look_up in (setup.model_names.resolve, setup.model_names.profile):
        with pytest.raises(Conflict) as caught:
            look_up("brief")
        assert "other.gguf" in caught.value.message
        assert "loaded.gguf" in caught.value.message
        assert "POST /models/model" in caught.value.message


def test_the_selected_profile_answers_whatever_is_loaded(setup: Setup) -> None:
    """The selected profile can be used with a model other than its own."""
    setup.put("brief", model="other.gguf")
    setup.select("brief")
    assert setup.model_names.resolve("brief").name == "brief"
    assert setup.model_names.profile("brief").name == "brief"


def test_the_selected_profile_answers_under_the_name_of_the_file(setup: Setup) -> None:
    """The name of the loaded file means the selected profile, if that fits the file."""
    assert setup.model_names.resolve("loaded.gguf").name == "default"
    setup.put("brief", model="loaded.gguf")
    setup.select("brief")
    assert setup.model_names.resolve("loaded.gguf").name == "brief"


def test_a_plain_profile_answers_where_the_selected_is_for_another_file(setup: Setup) -> None:
    """If the selected profile is for another file, the default values are used."""
    setup.put("brief", model="other.gguf")
    setup.select("brief")
    stored = setup.model_names.resolve("loaded.gguf")
    assert (stored.name, stored.revision, stored.profile) == ("", 0, Profile())


def test_a_file_that_is_not_loaded_is_a_conflict(setup: Setup) -> None:
    """A file that is not loaded is refused, since another model must not answer for it."""
    with pytest.raises(Conflict) as caught:
        setup.model_names.resolve("other.gguf")
    assert caught.value.param == "model"
    assert "other.gguf is not loaded, loaded.gguf is" in caught.value.message


def test_a_profile_called_as_a_file_answers_in_its_place(setup: Setup) -> None:
    """A profile with the name of a file is used even if that file is not loaded."""
    setup.put("other.gguf", model="loaded.gguf")
    assert setup.model_names.resolve("other.gguf").profile.model == "loaded.gguf"


def test_a_file_that_was_removed_from_the_folder_is_unknown(setup: Setup) -> None:
    """A file that was removed is unknown although its model is still loaded."""
    (setup.folder / "loaded.gguf").unlink()
    with pytest.raises(UnknownModel):
        setup.model_names.resolve("loaded.gguf")


def test_who_names_nothing_gets_the_selected_profile(setup: Setup) -> None:
    """Without a name, the selected profile is used, which is `default` at first."""
    assert setup.model_names.selected().name == "default"
    setup.put("brief")
    setup.select("brief")
    assert setup.model_names.selected().name == "brief"


def test_a_file_is_no_profile(setup: Setup) -> None:
    """The name of a file is not accepted as the name of a profile."""
    with pytest.raises(UnknownProfile):
        setup.model_names.profile("loaded.gguf")


def test_without_a_model_nothing_is_loaded(setup: Setup) -> None:
    """Without a loaded model, every file is refused, and the error names no other model."""
    setup.engine.name = None
    with pytest.raises(Conflict) as caught:
        setup.model_names.resolve("loaded.gguf")
    assert "None" not in caught.value.message
    assert setup.model_names.resolve("default").name == "default"
