"""Sessions: the conversations of a key, as a list of turns.

Every query is limited to one key: the session of another key is treated as missing.
"""

from __future__ import annotations

import builtins
import re
from typing import Any

import msgspec
from sqlalchemy import Row, delete, func, insert, select, update

from llmd.errors import Conflict, InvalidField, UnknownSession
from llmd.store import tables
from llmd.store.db import Database, Tx, is_storable, page_size

NAME_CHARS = 30
MAX_NAME_CHARS = 200
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_sessions, _turns = tables.sessions, tables.turns


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation. Its id was chosen by the client and is unique for the key."""

    id: str
    name: str
    created_at: int
    updated_at: int
    num_turns: int


class NewTurn(msgspec.Struct, frozen=True, kw_only=True):
    """A user's message with its answer, and the profile and model that produced the answer.

    `profile` may be empty, with revision 0. `messages` is a JSON list of all messages of the turn
    if the two texts do not contain everything, as with tool calls. `reasoning` is the thought
    before the answer.
    """

    user: str
    assistant: str
    profile: str = ""
    profile_revision: int = 0
    model: str = ""
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_completion_tokens: int = 0
    finish_reason: str = "stop"
    seed: int | None = None
    created_at: int
    messages: str | None = None
    reasoning: str = ""


class Turn(NewTurn, frozen=True, kw_only=True):
    """A stored turn. `seq` counts from 1 in its session, without gaps."""

    seq: int


def session_id(value: object) -> str:
    """Return the id of a session as text: 1 and "1" are the same session.

    Raise InvalidField for anything but an integer >= 0 or a string of 1 to 64 [A-Za-z0-9._-].
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**64:
        return str(value)
    if isinstance(value, str) and _ID.fullmatch(value):
        return value
    raise InvalidField(
        "session_id must be an integer >= 0 or a string of 1 to 64 of A-Z a-z 0-9 . _ -",
        param="session_id",
    )


def _session(row: Row[Any]) -> Session:
    return Session(
        id=row.id,
        name=row.name,
        created_at=row.created_at,
        updated_at=row.updated_at,
        num_turns=row.num_turns,
    )


def turn_of(row: Row[Any]) -> Turn:
    """Return a row of the table `turns` as a turn."""
    fields = row._asdict()
    del fields["session_pk"]
    return Turn(**fields)


def find(tx: Tx, key_id: str, name: str) -> Row[Any] | None:
    """Return the row of a key's session within `tx`, or None."""
    query = select(_sessions).where(_sessions.c.key_id == key_id, _sessions.c.id == name)
    return tx.execute(query).one_or_none()


def _get(tx: Tx, key_id: str, value: object) -> Row[Any]:
    row = find(tx, key_id, session_id(value))
    if row is None:
        raise UnknownSession("this key has no session with this id", param="session_id")
    return row


def create(tx: Tx, key_id: str, value: object, *, name: str, now: int) -> int:
    """Create an empty session within `tx` and return its `pk`, or raise Conflict."""
    external = session_id(value)
    if find(tx, key_id, external) is not None:
        raise Conflict("this key already has a session with this id", param="session_id")
    values = {"key_id": key_id, "id": external, "name": name, "num_turns": 0}
    made = insert(_sessions).values(**values, created_at=now, updated_at=now)
    return int(tx.execute(made.returning(_sessions.c.pk)).scalar_one())


def append(tx: Tx, key_id: str, value: object, turn: NewTurn, *, must_exist: bool = False) -> Turn:
    """Run `Sessions.append` within `tx`."""
    # NUL is allowed: a model may produce it, and an answer that was shown must be stored.
    for param, text in (
        ("prompt", turn.user),
        ("answer", turn.assistant),
        ("answer", turn.reasoning),
    ):
        if not is_storable(text.replace("\x00", "")):
            raise InvalidField(f"{param} must not hold half of a surrogate pair", param=param)
    row = _get(tx, key_id, value) if must_exist else find(tx, key_id, session_id(value))
    if row is None:
        pk, num_turns = (
            create(tx, key_id, value, name=turn.user[:NAME_CHARS], now=turn.created_at),
            0,
        )
    else:
        pk, num_turns = row.pk, row.num_turns
    stored = Turn(seq=num_turns + 1, **msgspec.structs.asdict(turn))
    tx.execute(insert(_turns).values(session_pk=pk, **msgspec.structs.asdict(stored)))
    counted = {"num_turns": stored.seq, "updated_at": turn.created_at}
    tx.execute(update(_sessions).where(_sessions.c.pk == pk).values(counted))
    return stored


class Sessions:
    """Stores the sessions of each key."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def list(
        self, key_id: str, *, limit: int = 100, after: int | str | None = None
    ) -> builtins.list[Session]:
        """Return sessions in order of creation. `after` is the last id of the previous page."""
        query = select(_sessions).where(_sessions.c.key_id == key_id)
        query = query.order_by(_sessions.c.pk).limit(page_size(limit))
        with self._db.read() as tx:
            if after is not None:
                position = find(tx, key_id, session_id(after))
                if position is None:
                    raise InvalidField("after must be the id of a session", param="after")
                query = query.where(_sessions.c.pk > position.pk)
            return [_session(row) for row in tx.execute(query)]

    def get(self, key_id: str, external_id: int | str) -> Session:
        """Return a session, or raise UnknownSession."""
        with self._db.read() as tx:
            return _session(_get(tx, key_id, external_id))

    def turns(
        self,
        key_id: str,
        external_id: int | str,
        *,
        limit: int = 100,
        after_seq: int = 0,
    ) -> builtins.list[Turn]:
        """Return the turns after `after_seq`, the oldest first, or raise UnknownSession."""
        query = select(_turns).order_by(_turns.c.seq).limit(page_size(limit))
        with self._db.read() as tx:
            pk = _get(tx, key_id, external_id).pk
            wanted = query.where(_turns.c.session_pk == pk, _turns.c.seq > after_seq)
            return [turn_of(row) for row in tx.execute(wanted)]

    def history(
        self,
        key_id: str,
        external_id: int | str,
        num_turns: int,
    ) -> tuple[int, builtins.list[Turn]]:
        """Return the number of all turns, and the last `num_turns` of them, the oldest first.

        For an unknown session, return `(0, [])`.
        """
        with self._db.read() as tx:
            row = find(tx, key_id, session_id(external_id))
            if row is None:
                return 0, []
            first = row.num_turns - num_turns
            last = select(_turns).where(_turns.c.session_pk == row.pk, _turns.c.seq > first)
            return row.num_turns, [
                turn_of(found) for found in tx.execute(last.order_by(_turns.c.seq))
            ]

    def append(
        self, key_id: str, external_id: int | str, turn: NewTurn, *, must_exist: bool = False
    ) -> Turn:
        """Append a turn, which is on the disk when this returns.

        If the session does not exist, raise UnknownSession if it `must_exist`, or else create it
        with the first characters of the prompt as its name. Raise InvalidField for a text that
        cannot be stored.
        """
        with self._db.write() as tx:
            return append(tx, key_id, external_id, turn, must_exist=must_exist)

    def rename(self, key_id: str, external_id: int | str, name: str, *, now: int) -> Session:
        """Rename a session, or raise UnknownSession or InvalidField."""
        if not 1 <= len(name) <= MAX_NAME_CHARS or not name.isprintable():
            raise InvalidField(
                f"name must be 1 to {MAX_NAME_CHARS} printable characters", param="name"
            )
        with self._db.write() as tx:
            row = _get(tx, key_id, external_id)
            change = update(_sessions).where(_sessions.c.pk == row.pk)
            tx.execute(change.values(name=name, updated_at=now))
            return _session(_get(tx, key_id, external_id))

    def delete(self, key_id: str, external_id: int | str) -> None:
        """Delete a session with its turns, or raise UnknownSession."""
        with self._db.write() as tx:
            tx.execute(delete(_sessions).where(_sessions.c.pk == _get(tx, key_id, external_id).pk))

    def count(self) -> int:
        """Return the number of sessions of all keys."""
        with self._db.read() as tx:
            return tx.execute(select(func.count()).select_from(_sessions)).scalar_one()
