"""Responses and their turns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmd.errors import InvalidField, UnknownResponse, UnknownSession
from llmd.store import migrate
from llmd.store.db import Database
from llmd.store.keys import Key, Keys
from llmd.store.responses import Responses, StoredResponse
from llmd.store.sessions import NewTurn, Sessions, Turn


class ResponseHarness:
    """A database with the keys A and B, and its sessions and responses."""

    def __init__(self, folder: Path) -> None:
        url = f"sqlite:///{folder}/llmd.db"
        migrate.upgrade(url, now=0)
        self.db = Database(url)
        for name in ("A", "B"):
            key = Key(id=name, name=name, role="user", hash="h", created_at=0)
            Keys(self.db).add(key, actor="cli")
        self.sessions, self.responses = Sessions(self.db), Responses(self.db)

    def append(
        self,
        session: str,
        response: str,
        *,
        key: str = "A",
        must_exist: bool = False,
        branch_of: StoredResponse | None = None,
        at: int = 0,
    ) -> None:
        """Store a response. The prompt of its turn is the id of the response."""
        self.responses.append(
            key,
            session,
            NewTurn(user=response, assistant="answer", created_at=at),
            response_id=response,
            body=f'{{"id": "{response}"}}',
            must_exist=must_exist,
            branch_of=branch_of,
        )

    def append_all(self, session: str, *responses: str) -> None:
        for response in responses:
            self.append(session, response)

    def prompts(self, session: str, last_seq: int | None = None) -> list[str]:
        """Return the prompts of a session."""
        return [turn.user for turn in self.responses.history("A", session, last_seq)]

    def exists(self, response: str, key: str = "A") -> bool:
        try:
            return self.responses.get(key, response).id == response
        except UnknownResponse:
            return False

    def count(self, table: str) -> int:
        with self.db.read() as tx:
            return int(tx.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[ResponseHarness]:
    """Provide a harness, and close its database at the end."""
    made = ResponseHarness(tmp_path)
    yield made
    made.db.close()


def test_a_response_is_read_as_it_was_stored(harness: ResponseHarness) -> None:
    """A response is read with its body, its session and the number of its turn."""
    harness.append_all("s", "r1", "r2")
    assert harness.responses.get("A", "r1") == StoredResponse(
        id="r1", session_id="s", seq=1, body='{"id": "r1"}', is_last=False
    )
    assert harness.responses.get("A", "r2") == StoredResponse(
        id="r2", session_id="s", seq=2, body='{"id": "r2"}', is_last=True
    )


def test_the_turn_of_a_response_is_appended_to_its_session(harness: ResponseHarness) -> None:
    """The turn of a response is stored with every field, after the turns before it."""
    harness.sessions.append("A", "s", NewTurn(user="first", assistant="a", created_at=0))
    turn = NewTurn(
        user="q",
        assistant="a",
        profile="p",
        profile_revision=3,
        model="m.gguf",
        num_prompt_tokens=11,
        num_cached_tokens=7,
        num_completion_tokens=5,
        finish_reason="length",
        seed=9,
        created_at=8,
        messages='[{"role": "user", "content": "q"}]',
    )
    harness.responses.append("A", "s", turn, response_id="r", body="{}", must_exist=True)
    [_, stored] = harness.sessions.turns("A", "s")
    assert stored.seq == 2
    assert all(getattr(stored, field) == getattr(turn, field) for field in turn.__struct_fields__)
    assert harness.responses.history("A", "s")[1] == stored
    session = harness.sessions.get("A", "s")
    assert (session.num_turns, session.updated_at) == (2, 8)


def test_a_turn_without_a_response_can_follow(harness: ResponseHarness) -> None:
    """A response is not the last once a turn without a response follows it."""
    harness.append("s", "r1")
    harness.sessions.append("A", "s", NewTurn(user="q", assistant="a", created_at=0))
    assert not harness.responses.get("A", "r1").is_last


def test_the_history_ends_at_last_seq(harness: ResponseHarness) -> None:
    """The history has all turns, or those up to `last_seq`; an unknown session has none."""
    harness.append_all("s", "r1", "r2", "r3")
    assert harness.prompts("s") == ["r1", "r2", "r3"]
    assert harness.prompts("s", 2) == ["r1", "r2"]
    assert harness.prompts("s", 0) == []
    assert harness.prompts("nowhere") == []


def test_a_key_sees_nothing_of_another_key(harness: ResponseHarness) -> None:
    """A response of another key is treated as missing, and so is its session."""
    harness.append("s", "r1")
    harness.append("s", "r2", key="B")
    messages = set()
    for response in ("r1", "nowhere"):
        for act in (harness.responses.get, harness.responses.delete):
            with pytest.raises(UnknownResponse) as caught:
                act("B", response)
            messages.add(caught.value.message)
    assert len(messages) == 1
    assert harness.exists("r1")
    assert harness.prompts("s") == ["r1"]
    with pytest.raises(UnknownResponse):
        harness.append("new", "r3", key="B", branch_of=harness.responses.get("A", "r1"))
    assert harness.count("turns") == 2


def test_a_session_that_must_exist_is_not_created(harness: ResponseHarness) -> None:
    """If the session must exist and does not, neither turn nor response is stored."""
    with pytest.raises(UnknownSession):
        harness.append("s", "r1", must_exist=True)
    assert [harness.count(table) for table in ("sessions", "turns", "responses")] == [0, 0, 0]


def test_a_turn_that_cannot_be_stored_leaves_no_branch(harness: ResponseHarness) -> None:
    """A branch is not created if its new turn cannot be stored."""
    harness.append("s", "r1")
    half = NewTurn(user="half \ud800", assistant="", created_at=0)
    origin = harness.responses.get("A", "r1")
    with pytest.raises(InvalidField):
        harness.responses.append(
            "A", "b", half, response_id="r2", body="", must_exist=True, branch_of=origin
        )
    assert harness.sessions.count() == 1


# Branches


def test_a_branch_has_copies_of_the_turns_up_to_its_origin(harness: ResponseHarness) -> None:
    """A branch copies every field of the turns, and leaves the session of its origin unchanged."""
    harness.append_all("s", "r1", "r2", "r3")
    harness.sessions.rename("A", "s", "Rome", now=0)
    harness.append("b", "r4", must_exist=True, branch_of=harness.responses.get("A", "r2"), at=7)
    assert harness.prompts("b") == ["r1", "r2", "r4"]
    assert harness.prompts("s") == ["r1", "r2", "r3"]
    assert harness.responses.history("A", "b")[:2] == harness.responses.history("A", "s")[:2]
    branch = harness.sessions.get("A", "b")
    assert (branch.name, branch.num_turns, branch.created_at) == ("Rome", 3, 7)
    stored = harness.responses.get("A", "r4")
    assert (stored.session_id, stored.seq, stored.is_last) == ("b", 3, True)


def test_a_copied_turn_has_no_response(harness: ResponseHarness) -> None:
    """Copying a turn does not copy its response, because an id names one turn."""
    harness.append_all("s", "r1", "r2")
    harness.append("b", "r3", branch_of=harness.responses.get("A", "r1"))
    assert harness.responses.get("A", "r1").session_id == "s"
    assert harness.count("responses") == 3
    harness.sessions.delete("A", "s")
    assert [harness.exists(response) for response in ("r1", "r2", "r3")] == [False, False, True]
    assert harness.prompts("b") == ["r1", "r3"]


def test_a_branch_of_a_deleted_response_is_not_created(harness: ResponseHarness) -> None:
    """A branch is not created if its origin was deleted meanwhile."""
    harness.append_all("s", "r1", "r2")
    origin = harness.responses.get("A", "r1")
    harness.responses.delete("A", "r1")
    with pytest.raises(UnknownResponse):
        harness.append("b", "r3", branch_of=origin)
    assert harness.sessions.count() == 1
    assert not harness.exists("r3")


# Deleting


def test_the_last_turn_is_deleted_with_its_response(harness: ResponseHarness) -> None:
    """After the last turn is deleted, the one before is the last, and its number is free again."""
    harness.append_all("s", "r1", "r2")
    assert harness.responses.delete("A", "r2") == "s"
    assert not harness.exists("r2")
    assert harness.prompts("s") == ["r1"]
    assert harness.sessions.get("A", "s").num_turns == 1
    assert harness.responses.get("A", "r1").is_last
    harness.append("s", "r3")
    assert harness.responses.get("A", "r3").seq == 2


def test_an_earlier_turn_stays_without_its_response(harness: ResponseHarness) -> None:
    """Deleting an earlier response leaves its turn and the numbers of later turns unchanged."""
    harness.append_all("s", "r1", "r2", "r3")
    assert harness.responses.delete("A", "r2") == "s"
    assert [harness.exists(response) for response in ("r1", "r2", "r3")] == [True, False, True]
    assert harness.prompts("s") == ["r1", "r2", "r3"]
    assert harness.responses.get("A", "r3").seq == 3


def test_a_session_is_deleted_with_its_only_turn(harness: ResponseHarness) -> None:
    """A session without turns is deleted, and other sessions are unchanged."""
    harness.append_all("s", "r1")
    harness.append_all("t", "r2")
    assert harness.responses.delete("A", "r1") == "s"
    assert [session.id for session in harness.sessions.list("A")] == ["t"]
    assert [harness.count(table) for table in ("turns", "responses")] == [1, 1]


def test_deleting_all_responses_from_the_end_deletes_the_session(harness: ResponseHarness) -> None:
    """Deleting the responses from the last to the first leaves no rows."""
    harness.append_all("s", "r1", "r2", "r3")
    for response in ("r3", "r2", "r1"):
        harness.responses.delete("A", response)
    assert [harness.count(table) for table in ("sessions", "turns", "responses")] == [0, 0, 0]


def test_a_deleted_response_cannot_be_deleted_again(harness: ResponseHarness) -> None:
    """A deleted response is as unknown as any other."""
    harness.append_all("s", "r1", "r2")
    harness.responses.delete("A", "r1")
    with pytest.raises(UnknownResponse) as caught:
        harness.responses.delete("A", "r1")
    assert caught.value.param == "response_id"
    assert harness.prompts("s") == ["r1", "r2"]


def test_responses_are_deleted_with_their_session(harness: ResponseHarness) -> None:
    """Deleting a session leaves none of its responses."""
    harness.append_all("s", "r1", "r2")
    harness.append_all("t", "r3")
    harness.sessions.delete("A", "s")
    assert [harness.exists(response) for response in ("r1", "r2", "r3")] == [False, False, True]
    assert harness.count("responses") == 1


def test_the_body_of_a_deleted_response_is_not_in_the_file(tmp_path: Path) -> None:
    """Deleting a response overwrites its body in the file."""
    harness = ResponseHarness(tmp_path)
    for response in ("r1", "r2"):
        turn = NewTurn(user="q", assistant="a", created_at=0)
        body = f"canary of {response}"
        harness.responses.append("A", "s", turn, response_id=response, body=body, must_exist=False)
    harness.responses.delete("A", "r1")
    harness.db.close()
    raw = (tmp_path / "llmd.db").read_bytes()
    assert b"canary of r2" in raw
    assert b"canary of r1" not in raw


def test_a_turn_is_read_as_it_was_written(harness: ResponseHarness) -> None:
    """A NUL in an answer, which a model may produce, is kept."""
    turn = NewTurn(user="q", assistant="a\x00b", created_at=0)
    harness.responses.append("A", "s", turn, response_id="r", body="{}", must_exist=False)
    [found] = harness.responses.history("A", "s")
    assert isinstance(found, Turn)
    assert found.assistant == "a\x00b"
