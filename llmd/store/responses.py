"""Responses: turns that can be named, continued and deleted one by one.

Every query is limited to one key: the response of another key is treated as missing.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import delete, insert, literal, select, update

from llmd.errors import UnknownResponse
from llmd.store import sessions, tables
from llmd.store.db import Database, Tx
from llmd.store.sessions import NAME_CHARS, NewTurn, Turn

_sessions, _turns, _responses = tables.sessions, tables.turns, tables.responses


class StoredResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A response: its session, the number of its turn, and its body as JSON."""

    id: str
    session_id: str
    seq: int
    body: str
    is_last: bool
    """Whether its turn is the last one of its session."""


def _get(tx: Tx, key_id: str, response_id: str) -> StoredResponse:
    query = (
        select(_responses, _sessions.c.id.label("session_id"), _sessions.c.num_turns)
        .join_from(_responses, _sessions, _responses.c.session_pk == _sessions.c.pk)
        .where(_responses.c.id == response_id, _sessions.c.key_id == key_id)
    )
    row = tx.execute(query).one_or_none()
    if row is None:
        raise UnknownResponse("this key has no response with this id", param="response_id")
    return StoredResponse(
        id=row.id,
        session_id=row.session_id,
        seq=row.seq,
        body=row.body,
        is_last=row.seq == row.num_turns,
    )


class Responses:
    """Stores responses with the sessions that they belong to."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def get(self, key_id: str, response_id: str) -> StoredResponse:
        """Return a response, or raise `UnknownResponse`."""
        with self._db.read() as tx:
            return _get(tx, key_id, response_id)

    def history(self, key_id: str, session_id: str, last_seq: int | None = None) -> list[Turn]:
        """Return the turns of a session, up to `last_seq` if given; none if it is unknown."""
        with self._db.read() as tx:
            row = sessions.find(tx, key_id, session_id)
            if row is None:
                return []
            query = select(_turns).where(_turns.c.session_pk == row.pk).order_by(_turns.c.seq)
            if last_seq is not None:
                query = query.where(_turns.c.seq <= last_seq)
            return [sessions.turn_of(found) for found in tx.execute(query)]

    def append(
        self,
        key_id: str,
        session_id: str,
        turn: NewTurn,
        *,
        response_id: str,
        body: str,
        must_exist: bool,
        branch_of: StoredResponse | None = None,
    ) -> None:
        """Append a turn to a session, and store it as a response.

        With `branch_of`, create the session first, with copies of the turns up to that response.
        Raise as `Sessions.append` does, and `UnknownResponse` if `branch_of` no longer exists.
        """
        with self._db.write() as tx:
            if branch_of is not None:
                _branch(tx, key_id, session_id, branch_of, now=turn.created_at)
            stored = sessions.append(tx, key_id, session_id, turn, must_exist=must_exist)
            pk = select(_sessions.c.pk).where(
                _sessions.c.key_id == key_id, _sessions.c.id == session_id
            )
            values = {"id": response_id, "seq": stored.seq, "body": body}
            tx.execute(insert(_responses).values(session_pk=pk.scalar_subquery(), **values))

    def delete(self, key_id: str, response_id: str) -> str:
        """Delete a response and return the id of its session, or raise `UnknownResponse`.

        Its turn is deleted too if it is the last of the session, and the session if no turn is
        left. A turn that later ones build on stays.
        """
        with self._db.write() as tx:
            found = _get(tx, key_id, response_id)
            row = sessions.find(tx, key_id, found.session_id)
            assert row is not None, "a response without its session"  # noqa: S101
            tx.execute(delete(_responses).where(_responses.c.id == response_id))
            if not found.is_last:
                return found.session_id
            if found.seq == 1:
                tx.execute(delete(_sessions).where(_sessions.c.pk == row.pk))
            else:
                last = (_turns.c.session_pk == row.pk) & (_turns.c.seq == found.seq)
                tx.execute(delete(_turns).where(last))
                shorter = update(_sessions).where(_sessions.c.pk == row.pk)
                tx.execute(shorter.values(num_turns=found.seq - 1))
            return found.session_id


def _branch(tx: Tx, key_id: str, session_id: str, origin: StoredResponse, *, now: int) -> None:
    """Create a session with copies of the turns of another one up to `origin`."""
    # The origin may have been deleted meanwhile.
    origin = _get(tx, key_id, origin.id)
    row = sessions.find(tx, key_id, origin.session_id)
    assert row is not None, "a response without its session"  # noqa: S101
    pk = sessions.create(tx, key_id, session_id, name=row.name[:NAME_CHARS], now=now)
    columns = [column for column in _turns.c if column.name != "session_pk"]
    copied = select(literal(pk), *columns).where(
        _turns.c.session_pk == row.pk, _turns.c.seq <= origin.seq
    )
    names = ["session_pk", *(column.name for column in columns)]
    tx.execute(insert(_turns).from_select(names, copied))
    tx.execute(update(_sessions).where(_sessions.c.pk == pk).values(num_turns=origin.seq))
