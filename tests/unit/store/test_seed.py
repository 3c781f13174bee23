"""Importing the files of the seed, completely or not at all."""

from __future__ import annotations

import hashlib
import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmd.errors import ImportRefused
from llmd.store.db import Database
from llmd.store.keys import Keys
from llmd.store.profiles import Profile, Profiles, read_profile
from llmd.store.seed import Seed, import_seed, read_profiles, read_seed
from llmd.store.sessions import Sessions
from llmd.store.settings import Selection, Settings

MASTER, USER = "Aa0" * 6 + "Zz", "b1" * 10
TEMPLATE = "A script.\n\nCURRENT CONVERSATION: {chat_history}\n\nPROMPT: {input}\n\nGUIONISTA:"
VICUNA = {
    "model": "vicuna.gguf",
    "n_ctx": 4096,
    "temperature": 0.7,
    "max_tokens": 1000,
    "top_p": 0.8,
    "top_k": 40,
    "verbose": True,
    "repeat_penalty": 1.1,
    "f16_kv": False,
    "template": TEMPLATE,
}
CONFIG = {"SelectedModel": "Vicuna-13b", "Vicuna-13b": VICUNA, "small": {"model": "s.gguf"}}
KEYS = {"0": MASTER, "1": USER}
HISTORY = ["Human: hello", "AI: hi, Human: friend", "Human:two\nlines", "AI:"]
SESSIONS = {
    "Active": 5,
    "1": {"name": "greeting", "history": HISTORY},
    "5": {"name": "", "history": []},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the three files."""
    folder = tmp_path / "seed"
    folder.mkdir()
    write(folder, "config.json", CONFIG)
    write(folder, "api_keys.json", KEYS)
    write(folder, "sessions.json", SESSIONS)
    return folder


def write(folder: Path, name: str, value: Any) -> None:
    """Write text and bytes as they are, and any other value as JSON."""
    data = value if isinstance(value, str | bytes) else json.dumps(value)
    (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)


def digest(text: str) -> str:
    """Return the SHA-256 of a key, as the daemon computes it."""
    return hashlib.sha256(text.encode()).hexdigest()


_numbers = count()


def read(folder: Path) -> Seed:
    """Read the files in the folder, with a cheap hash."""
    return read_seed(
        folder,
        hash_key=lambda text: f"hash of {len(text)}",
        new_id=lambda: f"id{next(_numbers)}",
        digest=digest,
        now=77,
    )


def test_everything_is_imported(db: Database, folder: Path) -> None:
    """Profiles, selection, keys with roles, and sessions with every turn are imported."""
    counts = import_seed(db, read(folder))
    assert (counts.profiles, counts.keys, counts.sessions, counts.turns) == (2, 2, 2, 2)
    kept = {name: value for name, value in VICUNA.items() if name not in ("verbose", "f16_kv")}
    assert Profiles(db).get("Vicuna-13b").profile == read_profile(kept)
    assert Profiles(db).get("small").profile == Profile(model="s.gguf")
    assert Settings(db).selection() == Selection(model="vicuna.gguf", profile="Vicuna-13b")
    master, user = Keys(db).by_digest(digest(MASTER)), Keys(db).by_digest(digest(USER))
    assert master is not None
    assert user is not None
    assert (master.name, master.role, master.hash) == ("seed-0", "admin", "hash of 20")
    assert (user.name, user.role, user.created_at) == ("seed-1", "user", 77)
    turns = Sessions(db).turns(master.id, 1)
    assert [(turn.user, turn.assistant) for turn in turns] == [
        ("hello", "hi, Human: friend"),
        ("two\nlines", ""),
    ]
    assert turns[0].finish_reason == "stop"
    assert [(found.id, found.name) for found in Sessions(db).list(master.id)] == [
        ("1", "greeting"),
        ("5", ""),
    ]
    assert Sessions(db).list(user.id) == []


def test_no_key_is_stored_in_plain_text(db: Database, folder: Path, tmp_path: Path) -> None:
    """The database contains the hash and the digest of a key, but not the key."""
    import_seed(db, read(folder))
    db.close()
    data = (tmp_path / "llmd.db").read_bytes()
    assert digest(MASTER).encode() in data
    assert MASTER.encode() not in data
    assert USER.encode() not in data


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["config.json"], (2, 0, 0, 0)),
        (["api_keys.json"], (0, 2, 0, 0)),
        (["api_keys.json", "sessions.json"], (0, 2, 2, 2)),
    ],
)
def test_a_file_may_be_absent(
    db: Database, folder: Path, names: list[str], expected: tuple[int, ...]
) -> None:
    """Those of the three files that exist are imported."""
    for name in {"config.json", "api_keys.json", "sessions.json"} - set(names):
        (folder / name).unlink()
    counts = import_seed(db, read(folder))
    assert (counts.profiles, counts.keys, counts.sessions, counts.turns) == expected


def test_not_all_files_may_be_absent(tmp_path: Path) -> None:
    """A folder without any of the files is refused, because its path must be wrong."""
    with pytest.raises(ImportRefused, match=r"config\.json"):
        read(tmp_path)


def test_an_existing_key_is_unchanged(db: Database, folder: Path) -> None:
    """A second import adds no key, and new sessions belong to the existing master key."""
    import_seed(db, read(folder))
    before = Keys(db).list()
    write(folder, "sessions.json", {"9": {"name": "later", "history": HISTORY}})
    counts = import_seed(db, read(folder))
    assert (counts.keys, counts.sessions) == (0, 1)
    assert Keys(db).list() == before
    master = Keys(db).by_digest(digest(MASTER))
    assert master is not None
    assert [found.id for found in Sessions(db).list(master.id)] == ["1", "5", "9"]


def test_an_existing_session_stops_the_whole_import(db: Database, folder: Path) -> None:
    """If a session exists, nothing is overwritten and the whole import is undone."""
    import_seed(db, read(folder))
    write(folder, "config.json", {"other": {}})
    write(folder, "api_keys.json", {"0": MASTER, "7": "c" * 20})
    write(folder, "sessions.json", {"4": {"name": "new", "history": []}, **SESSIONS})
    with pytest.raises(ImportRefused, match=r"sessions\.json: 1: "):
        import_seed(db, read(folder))
    assert [row.name for row in Profiles(db).list()] == ["Vicuna-13b", "small"]
    assert len(Keys(db).list()) == 2
    assert Sessions(db).count() == 2


def test_the_older_name_of_the_history_is_read(folder: Path) -> None:
    """`{history}` means `{chat_history}` in a template without that, and is literal otherwise."""
    templates = {"old": "{history} {input}", "new": "{history} {chat_history} {input}"}
    value = {name: {"template": template} for name, template in templates.items()}
    write(folder, "config.json", value)
    found, selected = read_profiles(folder / "config.json")
    assert found["old"].template == "{chat_history} {input}"
    assert found["new"].template == "{history} {chat_history} {input}"
    assert selected is None


def config_file(**fields: Any) -> dict[str, Any]:
    """Return the content of a `config.json` with one profile."""
    return {"p": {**VICUNA, **fields}}


def sessions_file(*history: Any) -> dict[str, Any]:
    """Return the content of a `sessions.json` with one session."""
    return {"1": {"name": "n", "history": list(history)}}


@pytest.mark.parametrize(
    ("file", "value", "place"),
    [
        ("config.json", "", "config.json: "),
        ("config.json", "[]", "config.json: "),
        ("config.json", "{", "config.json: "),
        ("config.json", b'{"p\xff": {}}', "config.json: must be UTF-8"),
        ("config.json", '{"p": {"top_k": 1, "top_k": 2}}', "config.json: top_k: "),
        ("config.json", '{"p": {"top_p": NaN}}', "config.json: NaN"),
        ("config.json", '{"p": {"top_p": 1e999}}', "config.json: p.top_p: "),
        ("config.json", '{"p": {"top_k": ' + "9" * 5000 + "}}", "config.json: "),
        ("config.json", "[" * 100_000, "config.json: "),
        ("config.json", {"p": 1}, "config.json: p: "),
        ("config.json", {"two words": {}}, "config.json: two words: "),
        ("config.json", {"SelectedModel": "p"}, "config.json: SelectedModel: "),
        ("config.json", {"SelectedModel": 1, "p": {}}, "config.json: SelectedModel: "),
        ("config.json", config_file(colour="blue"), "config.json: p.colour: "),
        ("config.json", config_file(n_ctx="4096"), "config.json: p.n_ctx: "),
        ("config.json", config_file(top_p=3), "config.json: p.top_p: "),
        ("config.json", config_file(template="none"), "config.json: p.template: "),
        ("config.json", config_file(template="\ud800{input}"), "config.json: p.template: "),
        ("api_keys.json", {"0": "short"}, "api_keys.json: 0: "),
        ("api_keys.json", {"0": 12345678901234567890}, "api_keys.json: 0: "),
        ("api_keys.json", {"0": "é" * 20}, "api_keys.json: 0: "),
        ("api_keys.json", {"0": MASTER + "\n"}, "api_keys.json: 0: "),
        ("api_keys.json", {"0": MASTER, "2": MASTER}, "api_keys.json: 2: "),
        ("api_keys.json", {USER: "1"}, r"api_keys.json: \(a name\): "),
        ("api_keys.json", f'{{"{USER}": 1, "{USER}": 2}}', r"api_keys.json: \(a name\): "),
        ("api_keys.json", {"1": USER}, "sessions.json: needs api_keys.json"),
        ("sessions.json", {"Active": []}, "sessions.json: Active: "),
        ("sessions.json", {"a b": {"name": "", "history": []}}, "sessions.json: a b: "),
        ("sessions.json", {"1": []}, "sessions.json: 1: "),
        ("sessions.json", {"1": {"name": "n"}}, "sessions.json: 1: "),
        ("sessions.json", {"1": {"name": 1, "history": []}}, "sessions.json: 1.name: "),
        ("sessions.json", {"1": {"name": "", "history": {}}}, "sessions.json: 1.history: "),
        ("sessions.json", sessions_file("AI: x"), r"sessions.json: 1.history\[0\]: "),
        ("sessions.json", sessions_file("Human: x"), r"sessions.json: 1.history\[0\]: "),
        (
            "sessions.json",
            sessions_file("Human: x", "Human: y"),
            r"sessions.json: 1.history\[1\]: ",
        ),
        ("sessions.json", sessions_file("Human: x", None), r"sessions.json: 1.history\[1\]: "),
        ("sessions.json", sessions_file(*HISTORY, "Human: x"), r"sessions.json: 1.history\[4\]: "),
        (
            "sessions.json",
            sessions_file("Human: \ud800", "AI: "),
            r"sessions.json: 1.history\[0\]: ",
        ),
    ],
)
def test_a_wrong_file_is_refused_by_file_and_field(
    folder: Path, file: str, value: Any, place: str
) -> None:
    """The message names file and field, can be printed and contains no key."""
    write(folder, file, value)
    with pytest.raises(ImportRefused, match=place) as caught:
        read(folder)
    caught.value.message.encode()
    assert not any(key in caught.value.message for key in (MASTER, USER))


def test_a_file_that_cannot_be_read_is_refused(folder: Path) -> None:
    """A folder in place of a file is refused."""
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    with pytest.raises(ImportRefused, match=r"config\.json: cannot be read"):
        read(folder)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["0", "1", "name", "history", "Active", "model", "top_p"]), inner
        )
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for many examples."""
    return tmp_path_factory.mktemp("seeds")


@given(
    name=st.sampled_from(["config.json", "api_keys.json", "sessions.json"]),
    value=_JSON.map(json.dumps) | st.binary(max_size=30),
)
@settings(max_examples=100, deadline=None)
def test_any_file_is_read_or_refused(shared: Path, name: str, value: str | bytes) -> None:
    """Whatever a file contains, no exception but ImportRefused is raised."""
    write(shared, "config.json", CONFIG)
    write(shared, "api_keys.json", KEYS)
    write(shared, "sessions.json", SESSIONS)
    write(shared, name, value)
    try:
        read(shared)
    except ImportRefused as error:
        assert name in error.message or "sessions.json" in error.message  # noqa: PT017
