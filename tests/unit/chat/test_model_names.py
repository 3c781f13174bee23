"""What may be named as a model, and what answers under each name."""

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


class House:
    """The profile `default`, the model that is loaded, and another one."""

    def __init__(self, db: Database, folder: Path) -> None:
        self.folder = folder
        self.engine = FakeEngine("loaded.gguf")
        self.profiles, self.settings = Profiles(db), Settings(db)
        self.ids = ModelNames(self.engine, self.profiles, self.settings, Library(folder))
        for name in ("loaded.gguf", "other.gguf"):
            self.add(name)
        self.put("default", at=5)

    def add(self, name: str) -> int:
        """Put a file into the folder; return when that was."""
        file = self.folder / name
        file.write_bytes(gguf_file.build())
        return int(file.stat().st_mtime)

    def put(self, name: str, model: str = "", at: int = 0) -> None:
        self.profiles.put(name, Profile(model=model), actor="cli", now=at)

    def select(self, profile: str) -> None:
        self.settings.select(model=None, profile=profile, actor="cli", now=0)

    def names(self) -> list[str]:
        return [found.id for found in self.ids.list()]


@pytest.fixture
def house(db: Database, tmp_path: Path) -> House:
    """Give a house."""
    folder = tmp_path / "models"
    folder.mkdir()
    return House(db, folder)


# The list


def test_profiles_come_first_then_files(house: House) -> None:
    """Each by name, for clients show them in a menu."""
    house.put("brief")
    house.put("zoo", model="other.gguf")
    house.add("A.gguf")
    assert house.names() == ["brief", "default", "zoo", "A.gguf", "loaded.gguf", "other.gguf"]


def test_each_has_the_time_of_its_making(house: House) -> None:
    """A profile that of its revision, a file that of its last change."""
    made = house.add("new.gguf")
    found = {model.id: model.created_at for model in house.ids.list()}
    assert (found["default"], found["new.gguf"]) == (5, made)


def test_a_name_is_listed_once(house: House) -> None:
    """A profile may be called as a file is: then the profile answers."""
    house.put("loaded.gguf", at=7)
    assert house.names() == ["default", "loaded.gguf", "other.gguf"]
    assert house.ids.get("loaded.gguf") == ModelName(id="loaded.gguf", created_at=7)


def test_there_may_be_more_profiles_than_a_page_of_the_store(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is left out."""
    monkeypatch.setattr(model_names, "_PAGE", 2)
    names = [f"p{number}" for number in range(5)]
    for name in names:
        house.put(name)
    assert house.names() == ["default", *names, "loaded.gguf", "other.gguf"]


def test_what_is_deleted_is_not_listed(house: House) -> None:
    """Neither the profile nor the file."""
    house.put("brief")
    house.profiles.delete("brief", actor="cli", now=0)
    (house.folder / "other.gguf").unlink()
    assert house.names() == ["default", "loaded.gguf"]
    for name in ("brief", "other.gguf"):
        with pytest.raises(UnknownModel):
            house.ids.get(name)


@pytest.mark.parametrize("name", ["default", "loaded.gguf", "other.gguf"])
def test_all_that_is_listed_can_be_looked_up(house: House, name: str) -> None:
    """Loaded or not."""
    assert house.ids.get(name) in house.ids.list()


@pytest.mark.parametrize("name", ["", "nobody", "Default", "loaded", "../models/loaded.gguf"])
def test_what_is_not_listed_is_unknown(house: House, name: str) -> None:
    """Only whole names count."""
    for look_up in (house.ids.get, house.ids.resolve):
        with pytest.raises(UnknownModel) as caught:
            look_up(name)
        assert caught.value.param == "model"


def test_an_unknown_name_is_safe_to_show(house: House) -> None:
    """It is somebody's text."""
    with pytest.raises(UnknownModel) as caught:
        house.ids.resolve("a\n\x1b[31m" + "b" * 100)
    assert caught.value.message.isprintable()
    assert "b" * 65 not in caught.value.message


# Which profile answers


@pytest.mark.parametrize("model", ["", "loaded.gguf"])
def test_a_profile_answers_under_its_name(house: House, model: str) -> None:
    """If it is for the model that is loaded, or for any."""
    house.put("brief", model=model)
    stored = house.ids.resolve("brief")
    assert (stored.name, stored.revision, stored.profile.model) == ("brief", 1, model)
    assert house.ids.profile("brief") == stored


def test_a_profile_for_another_model_is_a_conflict(house: House) -> None:
    """The message names both, and how to change it."""
    house.put("brief", model="other.gguf")
    for look_up in (house.ids.resolve, house.ids.profile):
        with pytest.raises(Conflict) as caught:
            look_up("brief")
        assert "other.gguf" in caught.value.message
        assert "loaded.gguf" in caught.value.message
        assert "POST /models/model" in caught.value.message


def test_the_selected_profile_answers_whatever_is_loaded(house: House) -> None:
    """An admin may have selected it with another model than its own."""
    house.put("brief", model="other.gguf")
    house.select("brief")
    assert house.ids.resolve("brief").name == "brief"
    assert house.ids.profile("brief").name == "brief"


def test_the_selected_profile_answers_under_the_name_of_the_file(house: House) -> None:
    """It is for any model, or for this one."""
    assert house.ids.resolve("loaded.gguf").name == "default"
    house.put("brief", model="loaded.gguf")
    house.select("brief")
    assert house.ids.resolve("loaded.gguf").name == "brief"


def test_a_plain_profile_answers_where_the_selected_is_for_another_file(house: House) -> None:
    """Its template and its words are made for that one."""
    house.put("brief", model="other.gguf")
    house.select("brief")
    stored = house.ids.resolve("loaded.gguf")
    assert (stored.name, stored.revision, stored.profile) == ("", 0, Profile())


def test_a_file_that_is_not_loaded_is_a_conflict(house: House) -> None:
    """Another model's answer must not be taken for its own."""
    with pytest.raises(Conflict) as caught:
        house.ids.resolve("other.gguf")
    assert caught.value.param == "model"
    assert "other.gguf is not loaded, loaded.gguf is" in caught.value.message


def test_a_profile_called_as_a_file_answers_in_its_place(house: House) -> None:
    """Also for a file that is not loaded: the admin has said so."""
    house.put("other.gguf", model="loaded.gguf")
    assert house.ids.resolve("other.gguf").profile.model == "loaded.gguf"


def test_a_file_that_was_removed_from_the_folder_is_unknown(house: House) -> None:
    """Though it is still in memory."""
    (house.folder / "loaded.gguf").unlink()
    with pytest.raises(UnknownModel):
        house.ids.resolve("loaded.gguf")


def test_who_names_nothing_gets_the_selected_profile(house: House) -> None:
    """At first `default`."""
    assert house.ids.selected().name == "default"
    house.put("brief")
    house.select("brief")
    assert house.ids.selected().name == "brief"


def test_a_file_is_no_profile(house: House) -> None:
    """Where a profile must be named, a file cannot be."""
    with pytest.raises(UnknownProfile):
        house.ids.profile("loaded.gguf")


def test_without_a_model_nothing_is_loaded(house: House) -> None:
    """Every file is a conflict, and the message makes no model up."""
    house.engine.name = None
    with pytest.raises(Conflict) as caught:
        house.ids.resolve("loaded.gguf")
    assert "None" not in caught.value.message
    assert house.ids.resolve("default").name == "default"
