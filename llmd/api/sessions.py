"""``/sessions``: the caller's conversations."""

from __future__ import annotations

import re
import time
from typing import Annotated

import falcon
import msgspec
from msgspec import Meta, Struct

from llmd.api import body
from llmd.api.access import Access, caller_of
from llmd.api.reply import next_after, send
from llmd.api.route import AFTER, LIMIT, Operation, Parameter
from llmd.chat.outcome import Usage
from llmd.engine.engine import Engine
from llmd.errors import InvalidField, StoreFull, UnknownSession
from llmd.store.sessions import MAX_NAME_CHARS, Session, Sessions, Turn


class SessionPage(Struct, frozen=True, kw_only=True):
    """A page of the caller's sessions, in the order in which they were made."""

    sessions: list[Session]
    next: str | None


class TurnView(Struct, frozen=True, kw_only=True):
    """A user's message with its answer, and how it was made. `seq` counts from 1."""

    seq: int
    user: str
    assistant: str
    profile: str
    profile_revision: int
    model: str
    usage: Usage
    finish_reason: str
    seed: int | None
    created_at: int

    @classmethod
    def of(cls, turn: Turn) -> TurnView:
        """Return the view of a stored turn."""
        return cls(
            seq=turn.seq,
            user=turn.user,
            assistant=turn.assistant,
            profile=turn.profile,
            profile_revision=turn.profile_revision,
            model=turn.model,
            usage=Usage.of(
                turn.num_prompt_tokens, turn.num_completion_tokens, turn.num_cached_tokens
            ),
            finish_reason=turn.finish_reason,
            seed=turn.seed,
            created_at=turn.created_at,
        )


class SessionView(Session, frozen=True, kw_only=True):
    """A session with a page of its turns, the oldest first."""

    turns: list[TurnView]
    next: int | None


class Rename(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The new name of a session."""

    # The store checks the name, with a clearer error than msgspec's.
    name: Annotated[
        str,
        Meta(
            description=f"1 to {MAX_NAME_CHARS} printable characters.",
            examples=["Capitals"],
            extra_json_schema={"minLength": 1, "maxLength": MAX_NAME_CHARS},
        ),
    ]


_AFTER_TURN = Parameter(
    "after",
    "The `next` of the page before: the `seq` of a turn.",
    {"type": "integer", "minimum": 0, "maximum": 999_999_999, "default": 0},
)

SESSIONS = {
    "GET": Operation(
        summary="List the caller's sessions in the order in which they were made",
        access=Access.USER,
        query=(LIMIT, AFTER),
        reply=SessionPage,
    ),
}
SESSION = {
    "GET": Operation(
        summary="Show a session with a page of its turns",
        access=Access.USER,
        query=(LIMIT, _AFTER_TURN),
        reply=SessionView,
        errors=(UnknownSession,),
    ),
    "PATCH": Operation(
        summary="Rename a session",
        access=Access.USER,
        body=Rename,
        reply=Session,
        errors=(UnknownSession, StoreFull),
    ),
    "DELETE": Operation(
        summary="Delete a session with its turns",
        access=Access.USER,
        status=204,
        errors=(InvalidField, UnknownSession, StoreFull),
    ),
}


class SessionsResource:
    """All sessions of the caller."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List the sessions in the order in which they were made."""
        limit = body.limit_of(req)
        page = self._sessions.list(caller_of(req).id, limit=limit, after=body.after_of(req))
        following = next_after(page, limit, lambda session: session.id)
        send(resp, SessionPage(sessions=page, next=following))


class SessionResource:
    """One session of the caller. A session of another key is answered as an unknown one."""

    def __init__(self, sessions: Sessions, engine: Engine) -> None:
        self._sessions = sessions
        self._engine = engine

    def on_get(self, req: falcon.Request, resp: falcon.Response, session_id: str) -> None:
        """Show the session with a page of its turns, the oldest first."""
        key_id = caller_of(req).id
        limit = body.limit_of(req)
        session = self._sessions.get(key_id, session_id)
        turns = self._sessions.turns(key_id, session_id, limit=limit, after_seq=_after_seq(req))
        view = SessionView(
            **msgspec.structs.asdict(session),
            turns=[TurnView.of(turn) for turn in turns],
            next=next_after(turns, limit, lambda turn: turn.seq),
        )
        send(resp, view)

    def on_patch(self, req: falcon.Request, resp: falcon.Response, session_id: str) -> None:
        """Rename the session."""
        wanted = body.read(req, Rename)
        session = self._sessions.rename(
            caller_of(req).id, session_id, wanted.name, now=int(time.time())
        )
        send(resp, session)

    def on_delete(self, req: falcon.Request, resp: falcon.Response, session_id: str) -> None:
        """Delete the session with its turns, and with the KV states that the engine keeps of it."""
        key_id = caller_of(req).id
        self._sessions.delete(key_id, session_id)
        self._engine.forget(key_id, session_id)
        resp.status = falcon.HTTP_204


def _after_seq(req: falcon.Request) -> int:
    """Return the query parameter `after` of a list of turns, by default 0."""
    value = body.after_of(req)
    if value is None:
        return 0
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise InvalidField("after must be the seq of a turn", param="after")
    return int(value)
