"""`/sessions`: the caller's conversations."""

from __future__ import annotations

import pytest

from llmd.store.sessions import NewTurn
from tests.support.service import Service

TURN_FIELDS = {
    "seq",
    "user",
    "assistant",
    "profile",
    "profile_revision",
    "model",
    "usage",
    "finish_reason",
    "seed",
    "created_at",
}


def store_turns(
    service: Service, session: int | str, num_turns: int = 1, *, key_id: str = ""
) -> None:
    """Store turns in a session of the user, or of another key."""
    for number in range(1, num_turns + 1):
        turn = NewTurn(
            user=f"q{number}",
            assistant=f"a{number}",
            profile="default",
            profile_revision=1,
            model="tiny.gguf",
            num_prompt_tokens=10,
            num_cached_tokens=4,
            num_completion_tokens=2,
            seed=7,
            created_at=number,
        )
        service.sessions.append(key_id or service.user_key.id, session, turn)


def test_sessions_are_listed_in_pages(service: Service) -> None:
    """The caller's sessions are listed in the order in which they were made, in pages."""
    for name in ("c", "a", "b"):
        store_turns(service, name)
    store_turns(service, "z", key_id=service.other_key.id)
    page = service.ask("GET", "/sessions", query_string="limit=2").json
    assert [session["id"] for session in page["sessions"]] == ["c", "a"]
    assert page["next"] == "a"
    assert page["sessions"][0] == {
        "id": "c",
        "name": "q1",
        "created_at": 1,
        "updated_at": 1,
        "num_turns": 1,
    }
    page = service.ask("GET", "/sessions", query_string="limit=2&after=a").json
    assert [session["id"] for session in page["sessions"]] == ["b"]
    assert page["next"] is None


def test_a_session_is_shown_with_its_turns_in_pages(service: Service) -> None:
    """A session is shown with its turns in pages, the oldest first."""
    store_turns(service, 1, 3)
    shown = service.ask("GET", "/sessions/1", query_string="limit=2").json
    assert (shown["id"], shown["name"], shown["num_turns"], shown["next"]) == ("1", "q1", 3, 2)
    assert [turn["seq"] for turn in shown["turns"]] == [1, 2]
    assert set(shown["turns"][0]) == TURN_FIELDS
    assert shown["turns"][0] | {"usage": None} == {
        "seq": 1,
        "user": "q1",
        "assistant": "a1",
        "profile": "default",
        "profile_revision": 1,
        "model": "tiny.gguf",
        "usage": None,
        "finish_reason": "stop",
        "seed": 7,
        "created_at": 1,
    }
    assert shown["turns"][0]["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 2,
        "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    last = service.ask("GET", "/sessions/1", query_string="limit=2&after=2").json
    assert [turn["seq"] for turn in last["turns"]] == [3]
    assert last["next"] is None


def test_a_turn_of_an_answer_is_shown(service: Service) -> None:
    """`GET /sessions/…` shows the turn that `POST /answer` stored."""
    service.ask("POST", "/answer", {"prompt": "hi", "session_id": "s-1.x"})
    [turn] = service.ask("GET", "/sessions/s-1.x").json["turns"]
    assert (turn["user"], turn["assistant"]) == ("hi", "Hello you")


@pytest.mark.parametrize("query", ["limit=0", "after=x", "after=-1", "after=1.5"])
def test_a_wrong_page_of_turns_is_refused(service: Service, query: str) -> None:
    """A wrong `limit` or `after` of a list of turns is refused."""
    store_turns(service, 1)
    result = service.ask("GET", "/sessions/1", query_string=query)
    assert service.code(result) == (422, "invalid_field")


def test_a_page_after_an_unknown_session_is_refused(service: Service) -> None:
    """An `after` that is not a session of the caller is refused."""
    store_turns(service, "z", key_id=service.other_key.id)
    for after in ("none", "z", "a b"):
        result = service.ask("GET", "/sessions", query_string=f"after={after}")
        assert service.code(result) == (422, "invalid_field")


def test_a_session_gets_another_name(service: Service) -> None:
    """A session can be renamed, and the answer is the renamed session."""
    store_turns(service, 1)
    renamed = service.ask("PATCH", "/sessions/1", {"name": "Größe"}).json
    assert (renamed["id"], renamed["name"], renamed["num_turns"]) == ("1", "Größe", 1)
    assert service.ask("GET", "/answer").json == {"1": "Größe"}


@pytest.mark.parametrize("body", [{"name": ""}, {"name": "a\nb"}, {"name": 1}, {}, {"x": 1}])
def test_a_wrong_name_is_refused(service: Service, body: dict[str, object]) -> None:
    """A wrong name is refused, and the old one stays."""
    store_turns(service, 1)
    assert service.code(service.ask("PATCH", "/sessions/1", body)) == (422, "invalid_field")
    assert service.sessions.get(service.user_key.id, 1).name == "q1"


def test_a_deleted_session_is_gone_from_the_store_and_the_engine(service: Service) -> None:
    """A deleted session is gone from store and engine. No other session is."""
    store_turns(service, 1)
    store_turns(service, 2)
    store_turns(service, 1, key_id=service.other_key.id)
    result = service.ask("DELETE", "/sessions/1")
    assert (result.status_code, result.content) == (204, b"")
    assert service.ask("GET", "/answer").json == {"2": "q1"}
    assert service.ask("GET", "/answer", key=service.other).json == {"1": "q1"}
    assert service.engine.forgotten == [(service.user_key.id, "1")]


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_a_session_of_another_key_is_answered_as_an_unknown_one(
    service: Service, method: str
) -> None:
    """A session of another key is answered as an unknown one, also for an admin."""
    store_turns(service, "theirs", key_id=service.other_key.id)
    body = {"name": "mine"} if method == "PATCH" else None
    for key in (service.user, service.admin):
        foreign = service.ask(method, "/sessions/theirs", body, key=key)
        absent = service.ask(method, "/sessions/absent", body, key=key)
        assert service.code(foreign) == (404, "session_not_found")
        assert foreign.text == absent.text
    assert service.engine.forgotten == []
    assert service.sessions.get(service.other_key.id, "theirs").name == "q1"


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_an_id_that_no_session_can_have_is_refused(service: Service, method: str) -> None:
    """An id that no session can have is a 422, never a 500."""
    for session_id in ("a%20b", "%00", "é", "x" * 65, "%ff"):
        result = service.ask(method, f"/sessions/{session_id}", {"name": "x"})
        assert service.code(result) == (422, "invalid_field")
