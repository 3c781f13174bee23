"""Sessions and their turns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmd.errors import InvalidField, UnknownSession
from llmd.store import migrate
from llmd.store.db import Database
from llmd.store.keys import Key, Keys
from llmd.store.sessions import NewTurn, Sessions, Turn, session_id


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """Provide a database with the keys A and B."""
    url = f"sqlite:///{tmp_path}/llmd.db"
    migrate.upgrade(url, now=0)
    database = Database(url)
    for name in ("A", "B"):
        Keys(database).add(
            Key(id=name, name=name, role="user", hash="h", created_at=0), actor="cli"
        )
    yield database
    database.close()


@pytest.fixture
def sessions(db: Database) -> Sessions:
    """Return the sessions of that database."""
    return Sessions(db)


def turn(user: str = "question", assistant: str = "answer", at: int = 0) -> NewTurn:
    """Return a new turn."""
    return NewTurn(user=user, assistant=assistant, created_at=at)


def prompts(turns: list[Turn]) -> list[str]:
    """Return the prompts of the turns."""
    return [found.user for found in turns]


def test_a_turn_is_read_as_it_was_appended(sessions: Sessions) -> None:
    """Every field of a turn is kept, and `seq` counts from 1."""
    new = NewTurn(
        user="what?",
        assistant="that\x00",
        profile="p",
        profile_revision=3,
        model="m.gguf",
        num_prompt_tokens=11,
        num_cached_tokens=7,
        num_completion_tokens=5,
        finish_reason="length",
        seed=2**32 - 2,
        created_at=9,
    )
    stored = sessions.append("A", 1, new)
    assert stored.seq == 1
    assert sessions.turns("A", 1, limit=10) == [stored]
    assert sessions.append("A", 1, new).seq == 2
    assert all(getattr(stored, field) == getattr(new, field) for field in new.__struct_fields__)


def test_a_new_session_is_named_by_the_beginning_of_its_first_prompt(sessions: Sessions) -> None:
    """A session is named by 30 characters of its first prompt; later prompts do not rename it."""
    sessions.append("A", "x", turn("ß" * 31, at=5))
    sessions.append("A", "x", turn("other", at=8))
    found = sessions.get("A", "x")
    assert (found.id, found.name, found.num_turns) == ("x", "ß" * 30, 2)
    assert (found.created_at, found.updated_at) == (5, 8)


def test_one_and_the_string_one_are_the_same_session(sessions: Sessions) -> None:
    """An id may be given as a number or as text."""
    sessions.append("A", 1, turn())
    sessions.append("A", "1", turn())
    assert sessions.get("A", 1) == sessions.get("A", "1")
    assert sessions.count() == 1


@pytest.mark.parametrize(
    "value", [True, False, -1, 1.0, None, "", "a b", "x" * 65, "a/b", "a\n", "é", [1], 10**64]
)
def test_other_ids_are_refused(value: object) -> None:
    """The error for a bad id names the field."""
    with pytest.raises(InvalidField) as caught:
        session_id(value)
    assert caught.value.param == "session_id"


@given(st.integers(min_value=0, max_value=10**30))
@settings(max_examples=30, deadline=None)
def test_a_number_and_its_text_are_one_id(number: int) -> None:
    """A number and its text are normalised to the same id, which normalising keeps."""
    assert session_id(number) == session_id(str(number)) == session_id(session_id(number))


def test_a_key_sees_nothing_of_another_key(sessions: Sessions) -> None:
    """Two keys can use the same id, and a session of another key is treated as missing."""
    sessions.append("A", 1, turn("of A"))
    sessions.append("A", "only-a", turn("of A"))
    sessions.append("B", 1, turn("of B"))
    assert prompts(sessions.turns("A", 1, limit=10)) == ["of A"]
    assert prompts(sessions.history("B", 1, 10)[1]) == ["of B"]
    assert [found.id for found in sessions.list("B")] == ["1"]
    messages = set()
    for name in ("only-a", "nowhere"):
        for call in (
            lambda name=name: sessions.get("B", name),
            lambda name=name: sessions.turns("B", name, limit=10),
            lambda name=name: sessions.rename("B", name, "mine", now=0),
            lambda name=name: sessions.delete("B", name),
        ):
            with pytest.raises(UnknownSession) as caught:
                call()
            messages.add(caught.value.message)
        assert sessions.history("B", name, 5) == (0, [])
        with pytest.raises(InvalidField):
            sessions.list("B", after=name)
    assert len(messages) == 1
    sessions.delete("B", 1)
    assert prompts(sessions.turns("A", 1, limit=10)) == ["of A"]


def test_sessions_are_listed_in_pages_in_order_of_creation(sessions: Sessions) -> None:
    """The order does not depend on ids, on clocks or on deleting the newest session."""
    for name in ("z", "m", "gone"):
        sessions.append("A", name, turn(at=9))
    sessions.delete("A", "gone")
    for name in ("a", "10", "9"):
        sessions.append("A", name, turn(at=1))
    sessions.append("A", "z", turn(at=99))
    found: list[str] = []
    while page := sessions.list("A", limit=2, after=found[-1] if found else None):
        found += [session.id for session in page]
    assert found == ["z", "m", "a", "10", "9"]


def test_turns_are_read_in_pages_from_the_oldest(sessions: Sessions) -> None:
    """`after_seq` is the number of the last turn of the previous page."""
    for number in range(5):
        sessions.append("A", 1, turn(str(number)))
    assert prompts(sessions.turns("A", 1, limit=2)) == ["0", "1"]
    assert prompts(sessions.turns("A", 1, limit=2, after_seq=2)) == ["2", "3"]
    assert prompts(sessions.turns("A", 1, limit=2, after_seq=5)) == []


@pytest.mark.parametrize(
    ("num_turns", "expected"), [(0, []), (2, ["3", "4"]), (5, list("01234")), (9, list("01234"))]
)
def test_the_history_is_the_last_turns_with_the_count_of_all(
    sessions: Sessions, num_turns: int, expected: list[str]
) -> None:
    """The history has the last turns, the oldest first, and the number of all turns."""
    for number in range(5):
        sessions.append("A", 1, turn(str(number)))
    total, turns = sessions.history("A", 1, num_turns)
    assert (total, prompts(turns)) == (5, expected)


def test_deleting_a_session_deletes_its_turns(sessions: Sessions, db: Database) -> None:
    """No row of a deleted session is left, and its id starts a new session."""
    for name in (1, 2):
        sessions.append("A", name, turn("old"))
    sessions.delete("A", 1)
    with db.read() as tx:
        assert tx.exec_driver_sql("SELECT count(*) FROM turns").scalar() == 1
    assert sessions.history("A", 1, 5) == (0, [])
    assert sessions.append("A", 1, turn("new")).seq == 1
    assert sessions.count() == 2


def test_a_deleted_text_is_not_in_the_file(tmp_path: Path) -> None:
    """Deleting a session overwrites its texts, so they cannot be read from the disk."""
    url = f"sqlite:///{tmp_path}/deep.db"
    migrate.upgrade(url, now=0)
    db = Database(url)
    Keys(db).add(Key(id="A", name="A", role="user", hash="h", created_at=0), actor="cli")
    sessions = Sessions(db)
    sessions.append("A", 1, turn("canary-in-a-prompt"))
    sessions.append("A", 2, turn("stays"))
    sessions.delete("A", 1)
    db.close()
    data = (tmp_path / "deep.db").read_bytes()
    assert b"stays" in data
    assert b"canary" not in data


def test_a_session_can_be_renamed(sessions: Sessions) -> None:
    """A new name must be short and printable, and the change sets `updated_at`."""
    sessions.append("A", 1, turn(at=1))
    renamed = sessions.rename("A", 1, "Trip to Rome", now=7)
    assert (renamed.name, renamed.updated_at, renamed.num_turns) == ("Trip to Rome", 7, 1)
    assert sessions.get("A", 1) == renamed
    for name in ("", "x" * 201, "a\nb", "\ud800"):
        with pytest.raises(InvalidField):
            sessions.rename("A", 1, name, now=8)
    assert sessions.get("A", 1) == renamed


@pytest.mark.parametrize("field", ["user", "assistant"])
def test_a_text_that_cannot_be_stored_stores_nothing(sessions: Sessions, field: str) -> None:
    """A lone surrogate is refused before a session is created."""
    texts = {"user": "fine", "assistant": "fine", field: "half \ud800"}
    with pytest.raises(InvalidField):
        sessions.append("A", 1, NewTurn(**texts, created_at=0))  # type: ignore[arg-type]
    assert sessions.count() == 0


@given(st.text(st.characters(codec="utf-8"), max_size=200))
@settings(max_examples=30, deadline=None)
def test_any_other_text_is_read_unchanged(text: str) -> None:
    """Texts are kept unchanged, including NUL, quotes and all kinds of line ends."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/llmd.db"
        migrate.upgrade(url, now=0)
        db = Database(url)
        Keys(db).add(Key(id="A", name="A", role="user", hash="h", created_at=0), actor="cli")
        Sessions(db).append("A", 1, turn(text, text))
        assert Sessions(db).history("A", 1, 1)[1][0].user == text
        db.close()
