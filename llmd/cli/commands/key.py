"""`llmd key`: create, list and revoke keys."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import click

from llmd.cli.command import Command, Group
from llmd.cli.installation import Installation, actor, pass_installation
from llmd.cli.output import json_option, moment, note, on_terminal, print_json, print_table

if TYPE_CHECKING:
    from llmd.store.db import Database
    from llmd.store.keys import Key

_PAGE = 1000
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_MAX_EXPIRES_IN_S = 100 * 365 * 86_400


class Duration(click.ParamType[int]):
    """A duration: seconds, or a number followed by s, m, h, d or w."""

    name = "duration"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the seconds: 1 to those of a hundred years."""
        found = re.fullmatch(r"([0-9]{1,12})([smhdw]?)", str(value))
        seconds = int(found[1]) * _UNITS_S[found[2]] if found else 0
        if not 0 < seconds <= _MAX_EXPIRES_IN_S:
            self.fail(
                f"{value!r} is not a duration of up to a hundred years: write 90d, 12h or seconds",
                param,
                ctx,
            )
        return seconds


@click.group("key", cls=Group)
def key_group() -> None:
    """Create, list and revoke the keys of people and programs."""


@key_group.command("create", cls=Command, cannot="create the key")
@click.argument("name")
@click.option("--role", type=click.Choice(["user", "admin"]), default="user", show_default=True)
@click.option(
    "--expires-in",
    type=Duration(),
    metavar="DURATION",
    help="Expire after 90d, 12h or a number of seconds; default: never.",
)
@json_option
@pass_installation
def create(
    installation: Installation,
    *,
    name: str,
    role: Literal["user", "admin"],
    expires_in: int | None,
    as_json: bool,
) -> None:
    """Create a key for NAME and print it; it cannot be shown again.

    Only the key goes to standard output, everything else to standard error.
    """
    from llmd.auth import secret
    from llmd.store.keys import Key, Keys, check_name

    check_name(name)
    with installation.database() as db:
        made = secret.make()
        now = int(time.time())
        row = Key(
            id=made.id,
            name=name,
            role=role,
            hash=secret.Hasher(installation.config.auth.argon2).hash(made.text),
            created_at=now,
            expires_at=None if expires_in is None else now + expires_in,
        )
        Keys(db).add(row, actor=actor())
    if as_json:
        shown = {"key": made.text, "id": row.id, "name": name, "role": role}
        print_json(shown | {"expires_at": row.expires_at})
        return
    click.echo(made.text)
    if on_terminal():
        until = f", valid until {moment(row.expires_at)}" if row.expires_at else ""
        note(f"This is the {role} key {row.id}{until}. It is shown only now: keep it safe.")


@key_group.command("list", cls=Command, cannot="list the keys")
@click.option("--all", "include_revoked", is_flag=True, help="Show revoked keys too.")
@json_option
@pass_installation
def list_keys(installation: Installation, *, include_revoked: bool, as_json: bool) -> None:
    """List the keys.

    The keys themselves cannot be shown, because llmd stores only their hashes.
    """
    with installation.database() as db:
        found = [key for key in every_key(db) if include_revoked or key.revoked_at is None]
    if as_json:
        print_json({"keys": [_public(key) for key in found]})
        return
    now = int(time.time())
    print_table(
        ("ID", "NAME", "ROLE", "STATE", "CREATED", "EXPIRES", "LAST USED"),
        [
            (
                key.id,
                key.name,
                key.role,
                _state(key, now),
                moment(key.created_at),
                moment(key.expires_at, never="never"),
                moment(key.last_used_at, never="never"),
            )
            for key in found
        ],
        empty="no keys",
    )


@key_group.command("revoke", cls=Command, cannot="revoke the key")
@click.argument("key_id", metavar="ID")
@json_option
@pass_installation
def revoke(installation: Installation, *, key_id: str, as_json: bool) -> None:
    """Revoke the key ID for good.

    A running daemon refuses it from the next request on. The last valid admin key cannot be
    revoked.
    """
    from llmd.store.keys import Keys

    with installation.database() as db:
        key = Keys(db).revoke(key_id, now=int(time.time()), actor=actor())
    if as_json:
        print_json(_public(key))
    else:
        note(f"the key {key.id} of {key.name} is revoked")


def every_key(db: Database) -> Iterator[Key]:
    """Yield all keys, including revoked ones, in the order of their creation."""
    from llmd.store.keys import Keys

    keys, last = Keys(db), None
    while page := keys.list(limit=_PAGE, after=last):
        yield from page
        last = page[-1].id


def _public(key: Key) -> dict[str, object]:
    """Return a key in the form of the HTTP API, without its hash and digest."""
    return {
        "id": key.id,
        "name": key.name,
        "role": key.role,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
    }


def _state(key: Key, now: int) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "valid" if key.is_valid(now) else "expired"
