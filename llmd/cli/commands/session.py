"""`llmd session`: show, delete and export the stored conversations."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click
import msgspec

from llmd.cli.command import Command, Group
from llmd.cli.commands.key import every_key
from llmd.cli.installation import Installation, pass_installation
from llmd.cli.output import (
    counted,
    json_option,
    moment,
    note,
    one_line,
    print_json,
    print_table,
    visible,
)
from llmd.errors import Conflict, LlmdError, UnknownSession

if TYPE_CHECKING:
    from llmd.store.db import Database
    from llmd.store.keys import Key
    from llmd.store.sessions import Session, Turn

_PAGE = 1000
_TIMEOUT_S = 3.0
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _key_option(function: _Function) -> _Function:
    """Add --key to a command."""
    text = "Use only the sessions of the key with this id."
    return click.option("--key", "key_id", metavar="ID", help=text)(function)


@click.group("session", cls=Group)
def session_group() -> None:
    """List, show, delete and export conversations."""


@session_group.command("list", cls=Command, cannot="list the sessions")
@_key_option
@json_option
@pass_installation
def list_sessions(installation: Installation, *, key_id: str | None, as_json: bool) -> None:
    """List the sessions of all keys in the order of their creation.

    WARM shows where the running daemon keeps the computed state of a session: in a slot of the
    model, in memory or on disk. Without such a state, the next answer takes longer to begin.
    """
    with installation.database() as db:
        found = [(key, one) for key in _keys(db, key_id) for one in _sessions(db, key.id)]
    warm = _warm(installation)
    if as_json:
        sessions = [
            _public(key, session) | {"warm": warm.get((key.id, session.id))}
            for key, session in found
        ]
        print_json({"sessions": sessions})
        return
    print_table(
        ("KEY", "OWNER", "ID", "TURNS", "LAST USED", "WARM", "NAME"),
        [
            (
                key.id,
                key.name,
                session.id,
                str(session.num_turns),
                moment(session.updated_at),
                warm.get((key.id, session.id), "-"),
                session.name,
            )
            for key, session in found
        ],
        empty="no sessions",
        numbers=("TURNS",),
    )


def _warm(installation: Installation) -> dict[tuple[str, str], str]:
    """Return where the daemon keeps each session's state: (key id, session id) → place.

    Return nothing if the daemon cannot be asked: the list of sessions does not depend on it.
    """
    from llmd.cli.connection import connect

    try:
        client = connect(installation, None, None, timeout_s=_TIMEOUT_S, needs_key=False)
        states = client.call("GET", "/states")["states"] if client.has_key else []
        # The daemon lists the fastest place of a session first. Reversed, it overwrites the others.
        return {(state["key_id"], state["session"]): state["place"] for state in reversed(states)}
    except (LlmdError, OSError, KeyError, TypeError):
        return {}


@session_group.command("show", cls=Command, cannot="show the session")
@click.argument("session_id", metavar="ID")
@_key_option
@json_option
@pass_installation
def show(installation: Installation, *, session_id: str, key_id: str | None, as_json: bool) -> None:
    """Show the session ID with all its turns.

    --key is needed if several keys have a session with this id.
    """
    with installation.database() as db:
        key, session = _find(db, key_id, session_id)
        turns = list(_turns(db, key.id, session.id))
    if as_json:
        print_json(_public(key, session) | {"turns": [msgspec.to_builtins(turn) for turn in turns]})
        return
    name = click.style(one_line(session.name), bold=True)
    click.echo(f"{name}\nsession {session.id} of {one_line(key.name)} ({key.id})")
    for turn in turns:
        what = f"{turn.seq}: {moment(turn.created_at)} {one_line(turn.model)}".rstrip()
        ended = "" if turn.finish_reason == "stop" else f", ended by {turn.finish_reason}"
        click.echo(f"\n{click.style(what + ended, dim=True)}")
        click.echo(f"{click.style('user:', bold=True)} {visible(turn.user)}")
        click.echo(f"{click.style('llmd:', bold=True)} {visible(turn.assistant)}")


@session_group.command("delete", cls=Command, cannot="delete the session")
@click.argument("session_id", metavar="ID")
@_key_option
@pass_installation
def delete(installation: Installation, *, session_id: str, key_id: str | None) -> None:
    """Delete the session ID with all its turns, for good.

    --key is needed if several keys have a session with this id.
    """
    from llmd.store.sessions import Sessions

    with installation.database() as db:
        key, session = _find(db, key_id, session_id)
        Sessions(db).delete(key.id, session.id)
    note(f"the session {session.id} of {one_line(key.name)} is deleted")


@session_group.command("export", cls=Command, cannot="export the sessions")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@_key_option
@pass_installation
def export(installation: Installation, *, file: Path | None, key_id: str | None) -> None:
    """Write the sessions with their turns as JSON, one per line.

    The output goes to the new FILE (mode 0600), or to standard output.
    """
    with installation.database() as db:
        if file is None:
            _export(db, key_id, sys.stdout)
            return
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
                num_sessions = _export(db, key_id, opened)
        except BaseException:
            # An incomplete export looks like a complete one.
            file.unlink(missing_ok=True)
            raise
    note(f"{counted(num_sessions, 'session')} in {file}")


def _export(db: Database, key_id: str | None, target: TextIO) -> int:
    num_sessions = 0
    for key in _keys(db, key_id):
        for session in _sessions(db, key.id):
            turns = [msgspec.to_builtins(turn) for turn in _turns(db, key.id, session.id)]
            # ASCII cannot control a terminal, and is the same on every machine.
            target.write(json.dumps(_public(key, session) | {"turns": turns}) + "\n")
            num_sessions += 1
    return num_sessions


def _keys(db: Database, key_id: str | None) -> list[Key]:
    """Return the key with this id, or all keys, also revoked ones: their sessions still exist."""
    from llmd.store.keys import Keys

    return list(every_key(db)) if key_id is None else [Keys(db).get(key_id)]


def _sessions(db: Database, key_id: str) -> Iterator[Session]:
    from llmd.store.sessions import Sessions

    last = None
    while page := Sessions(db).list(key_id, limit=_PAGE, after=last):
        yield from page
        last = page[-1].id


def _turns(db: Database, key_id: str, session_id: str) -> Iterator[Turn]:
    from llmd.store.sessions import Sessions

    last = 0
    while page := Sessions(db).turns(key_id, session_id, limit=_PAGE, after_seq=last):
        yield from page
        last = page[-1].seq


def _find(db: Database, key_id: str | None, session_id: str) -> tuple[Key, Session]:
    """Return the only session with this id, and its key.

    Raise `UnknownKey`, `UnknownSession`, or `Conflict` if several keys have such a session.
    """
    from llmd.store.sessions import Sessions

    found = []
    for key in _keys(db, key_id):
        try:
            found.append((key, Sessions(db).get(key.id, session_id)))
        except UnknownSession:
            if key_id is not None:
                raise
    if not found:
        raise UnknownSession("no key has a session with this id: see `llmd session list`")
    if len(found) > 1:
        ids = ", ".join(key.id for key, _ in found)
        raise Conflict(f"several keys have a session with this id: name one with --key: {ids}")
    return found[0]


def _public(key: Key, session: Session) -> dict[str, Any]:
    """Return a session in the form of the HTTP API, with the id of its key."""
    fields: dict[str, Any] = msgspec.to_builtins(session)
    return {"key_id": key.id, **fields}
