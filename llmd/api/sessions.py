"""``/sessions``: the caller's conversations."""

from __future__ import annotations

import re
import time
from typing import Any

import falcon
import msgspec
from msgspec import Struct

from llmd.api import body
from llmd.api.access import caller_of
from llmd.api.reply import send, send_page
from llmd.chat.request import Usage
from llmd.engine.engine import Engine
from llmd.errors import InvalidField
from llmd.store.sessions import Sessions, Turn


class Rename(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A session's new name."""

    name: str


class SessionsResource:
    """All sessions of the caller."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List them in the order of their making."""
        limit = body.limit_of(req)
        page = self._sessions.list(caller_of(req).id, limit=limit, after=body.after_of(req))
        send_page(resp, "sessions", page, limit, page[-1].id if page else None)


class SessionResource:
    """One session of the caller; another key's is as one that is not there."""

    def __init__(self, sessions: Sessions, engine: Engine) -> None:
        self._sessions = sessions
        self._engine = engine

    def on_get(self, req: falcon.Request, resp: falcon.Response, session_id: str) -> None:
        """Show it with a page of its turns, from the oldest."""
        key_id = caller_of(req).id
        limit = body.limit_of(req)
        session = self._sessions.get(key_id, session_id)
        turns = self._sessions.turns(key_id, session_id, limit=limit, after_seq=_after_seq(req))
        page = {
            "turns": [_view(turn) for turn in turns],
            "next": turns[-1].seq if len(turns) == limit else None,
        }
        send(resp, msgspec.structs.asdict(session) | page)

    def on_patch(self, req: falcon.Request, resp: falcon.Response, session_id: str) -> None:
        """Give it another name."""
        wanted = body.read(req, Rename)
        session = self._sessions.rename(
            caller_of(req).id, session_id, wanted.name, now=int(time.time())
        )
        send(resp, session)

    def on_delete(self, req: falcon.Request, resp: falcon.Response, session_id: str) -> None:
        """Delete it with its turns, and with what the engine keeps of it."""
        key_id = caller_of(req).id
        self._sessions.delete(key_id, session_id)
        self._engine.forget(key_id, session_id)
        resp.status = falcon.HTTP_204


def _after_seq(req: falcon.Request) -> int:
    value = body.after_of(req)
    if value is None:
        return 0
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise InvalidField("after must be the seq of a turn", param="after")
    return int(value)


def _view(turn: Turn) -> dict[str, Any]:
    return {
        "seq": turn.seq,
        "user": turn.user,
        "assistant": turn.assistant,
        "profile": turn.profile,
        "profile_revision": turn.profile_revision,
        "model": turn.model,
        "usage": Usage.of(
            turn.num_prompt_tokens, turn.num_completion_tokens, turn.num_cached_tokens
        ),
        "finish_reason": turn.finish_reason,
        "seed": turn.seed,
        "created_at": turn.created_at,
    }
