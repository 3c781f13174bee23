"""Profiles, their revisions and the selection."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmd.errors import Conflict, InvalidField, LlmdError, SchemaError, UnknownProfile
from llmd.store.audit import Audit
from llmd.store.db import Database
from llmd.store.profiles import Profile, Profiles, read_profile
from llmd.store.settings import Selection, Settings


@pytest.fixture
def profiles(db: Database) -> Profiles:
    """Return the profiles of that database."""
    return Profiles(db)


FULL = {
    "model": "a.gguf",
    "system": "You are kind.",
    "template": "{chat_history}\n{other} {{}} {input.__class__}\nPROMPT: {input}\nAI:",
    "human_label": "User",
    "ai_label": "Bot",
    "history_turns": 0,
    "n_ctx": 64,
    "max_tokens": 1_000_000,
    "temperature": 0,
    "top_p": 1,
    "top_k": 0,
    "min_p": 1.0,
    "repeat_penalty": 0.1,
    "seed": 2**32 - 2,
    "stop": ["x" * 128] * 8,
}


def test_a_profile_is_read_as_it_was_stored(profiles: Profiles) -> None:
    """A profile with every field at a bound is read as it was stored."""
    profile = read_profile(FULL)
    stored = profiles.put("full", profile, actor="cli", now=5)
    assert profiles.get("full") == stored
    assert stored.profile == profile
    assert (stored.revision, stored.updated_at) == (1, 5)


def test_an_empty_object_is_a_profile() -> None:
    """Every field of a profile has a default."""
    assert read_profile({}) == Profile()
    assert (Profile().history_turns, Profile().human_label, Profile().ai_label) == (
        5,
        "Human",
        "AI",
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "../a.gguf"),
        ("model", "/etc/a.gguf"),
        ("model", ".gguf"),
        ("model", "a.bin"),
        ("model", "a\n.gguf"),
        ("model", "a\x00.gguf"),
        ("model", 1),
        ("system", "x" * 65537),
        ("system", "a\x00b"),
        ("system", "\ud800"),
        ("template", "no place"),
        ("template", "{input} {input}"),
        ("template", "{chat_history}{chat_history}{input}"),
        ("template", "{input}" + "x" * 65536),
        ("template", "{input}\udfff"),
        ("human_label", ""),
        ("ai_label", "two\nlines"),
        ("history_turns", -1),
        ("history_turns", 1001),
        ("history_turns", True),
        ("n_ctx", 63),
        ("max_tokens", 0),
        ("max_tokens", 1_000_001),
        ("max_tokens", 10**30),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", "1"),
        ("top_p", 0),
        ("top_p", 1.01),
        ("top_p", math.nan),
        ("top_k", -1),
        ("top_k", 100_001),
        ("min_p", -0.1),
        ("min_p", math.nan),
        ("repeat_penalty", 0),
        ("repeat_penalty", 10.1),
        ("repeat_penalty", math.nan),
        ("seed", -1),
        ("seed", 2**32 - 1),
        ("stop", ["x"] * 9),
        ("stop", [""]),
        ("stop", ["x" * 129]),
        ("stop", ["a\x00"]),
        ("stop", "x"),
        ("no_such_field", 1),
    ],
)
def test_a_field_out_of_its_bounds_is_refused_by_name(field: str, value: Any) -> None:
    """The error for a field out of bounds names the field."""
    with pytest.raises(InvalidField) as caught:
        read_profile({field: value})
    assert (caught.value.param or "").partition("[")[0] == field


@pytest.mark.parametrize("value", [None, [], "text", 1])
def test_a_value_that_is_not_an_object_is_refused(value: object) -> None:
    """A value that is not an object raises InvalidField, as a wrong field does."""
    with pytest.raises(InvalidField):
        read_profile(value)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from([*FULL, "other"]), _VALUES, max_size=4))
@settings(max_examples=100, deadline=None)
def test_any_object_is_a_profile_or_an_invalid_field(value: dict[str, Any]) -> None:
    """Any object is read or raises InvalidField, and a profile that was read can be stored."""
    try:
        profile = read_profile(value)
    except InvalidField:
        return
    assert msgspec.json.decode(msgspec.json.encode(profile), type=Profile) == profile


@pytest.mark.parametrize("name", ["", ".a", "-a", "a b", "a/b", "x" * 65, "a\n", "é", "a\x00"])
def test_a_bad_name_is_refused(profiles: Profiles, name: str) -> None:
    """A bad name cannot be stored, and a profile with such a name is unknown."""
    with pytest.raises(InvalidField):
        profiles.put(name, Profile(), actor="cli", now=0)
    with pytest.raises(UnknownProfile):
        profiles.get(name)


def test_only_a_change_makes_a_revision_and_old_ones_stay(profiles: Profiles) -> None:
    """Storing an equal profile adds no revision, and old revisions stay readable."""
    profiles.put("p", Profile(top_k=1), actor="cli", now=1)
    assert profiles.put("p", Profile(top_k=1), actor="cli", now=2).updated_at == 1
    assert profiles.put("p", Profile(top_k=2), actor="cli", now=3).revision == 2
    assert profiles.get("p").profile.top_k == 2
    assert profiles.revision("p", 1).profile.top_k == 1
    with pytest.raises(UnknownProfile):
        profiles.revision("p", 3)


def test_a_profile_out_of_bounds_is_not_stored(profiles: Profiles) -> None:
    """Storing checks the bounds, because the constructor does not."""
    with pytest.raises(InvalidField):
        profiles.put("p", Profile(top_k=-5), actor="cli", now=0)
    with pytest.raises(UnknownProfile):
        profiles.get("p")


def test_profiles_are_listed_in_pages_by_name(profiles: Profiles) -> None:
    """Each profile is listed once, in its present revision, and deleted ones are not."""
    for name in ("b", "a", "d", "c", "gone"):
        profiles.put(name, Profile(top_k=1), actor="cli", now=0)
    profiles.put("b", Profile(top_k=2), actor="cli", now=1)
    profiles.delete("gone", actor="cli", now=2)
    found = profiles.list(limit=3)
    found += profiles.list(limit=3, after=found[-1].name)
    assert [(row.name, row.revision) for row in found] == [("a", 1), ("b", 2), ("c", 1), ("d", 1)]


def test_the_revisions_of_a_deleted_profile_stay(profiles: Profiles) -> None:
    """A profile created again continues the numbering, so no revision has two meanings."""
    profiles.put("p", Profile(top_k=1), actor="cli", now=0)
    profiles.delete("p", actor="cli", now=1)
    with pytest.raises(UnknownProfile):
        profiles.get("p")
    with pytest.raises(UnknownProfile):
        profiles.delete("p", actor="cli", now=1)
    assert profiles.revision("p", 1).profile.top_k == 1
    assert profiles.put("p", Profile(top_k=1), actor="cli", now=2).revision == 2
    assert profiles.get("p").revision == 2


def test_the_selection_outlives_the_connection(db: Database, tmp_path: Path) -> None:
    """The selection is stored. At first it is the profile `default` and no model."""
    assert Settings(db).selection() == Selection(model=None, profile="default")
    Profiles(db).put("p", Profile(), actor="cli", now=0)
    for model in ("a.gguf", "b.gguf"):
        Settings(db).select(model=model, profile="p", actor="cli", now=1)
    db.close()
    again = Database(f"sqlite:///{tmp_path}/llmd.db")
    assert Settings(again).selection() == Selection(model="b.gguf", profile="p")
    again.close()


def test_an_unknown_profile_cannot_be_selected(db: Database) -> None:
    """Selecting an unknown or deleted profile fails and leaves the selection unchanged."""
    Profiles(db).put("p", Profile(), actor="cli", now=0)
    Profiles(db).delete("p", actor="cli", now=0)
    for name in ("p", "nobody"):
        with pytest.raises(UnknownProfile):
            Settings(db).select(model=None, profile=name, actor="cli", now=1)
    assert Settings(db).selection() == Selection()


def test_the_selected_profile_cannot_be_deleted(db: Database, profiles: Profiles) -> None:
    """A selected profile can be deleted only after another one is selected."""
    for name in ("default", "p"):
        profiles.put(name, Profile(), actor="cli", now=0)
    with pytest.raises(Conflict):
        profiles.delete("default", actor="cli", now=1)
    Settings(db).select(model=None, profile="p", actor="cli", now=1)
    with pytest.raises(Conflict):
        profiles.delete("p", actor="cli", now=1)
    profiles.delete("default", actor="cli", now=1)
    assert [row.name for row in profiles.list()] == ["p"]


def test_each_change_of_a_profile_is_in_the_audit_trail(db: Database, profiles: Profiles) -> None:
    """The audit trail has every change, but no template and no write that changed nothing."""
    for _ in range(2):
        profiles.put("p", Profile(template="canary {input}"), actor="a", now=1)
    Settings(db).select(model="m.gguf", profile="p", actor="b", now=2)
    profiles.put("q", Profile(), actor="a", now=3)
    profiles.delete("q", actor="c", now=4)
    entries = Audit(db).list()
    assert [(entry.at, entry.actor, entry.action, entry.target) for entry in entries] == [
        (4, "c", "profile.delete", "q"),
        (3, "a", "profile.put", "q"),
        (2, "b", "selection", "p"),
        (1, "a", "profile.put", "p"),
    ]
    assert "canary" not in str(entries)


@pytest.mark.parametrize("body", ["{", '{"top_k": -1}', '{"from_a_newer_llmd": 1}'])
def test_a_stored_profile_that_cannot_be_read_is_named(
    db: Database, profiles: Profiles, body: str
) -> None:
    """A stored profile that cannot be read raises SchemaError, which names the profile."""
    profiles.put("p", Profile(), actor="cli", now=0)
    with db.write() as tx:
        tx.exec_driver_sql("UPDATE profile_revisions SET body = ?", (body,))
    with pytest.raises(SchemaError, match="profile p "):
        profiles.get("p")
    assert issubclass(SchemaError, LlmdError)
