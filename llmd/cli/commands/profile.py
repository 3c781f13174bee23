"""`llmd profile`: show and change profiles."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmd.cli.command import Command, Group
from llmd.cli.installation import Installation, actor, pass_installation
from llmd.cli.output import (
    json_option,
    moment,
    note,
    print_fields,
    print_json,
    print_table,
)
from llmd.cli.profile_fields import fields_of, make_profile, parse_setting, read_object
from llmd.errors import ConfigError, UnknownModel, UnknownProfile

if TYPE_CHECKING:
    from llmd.store.db import Database
    from llmd.store.profiles import Profile, StoredProfile

_PAGE = 1000


@click.group("profile", cls=Group)
def profile_group() -> None:
    """Show and change profiles.

    A profile is a model with its sampling, template and system text.
    """


@profile_group.command("list", cls=Command, cannot="list the profiles")
@json_option
@pass_installation
def list_profiles(installation: Installation, *, as_json: bool) -> None:
    """List the profiles; "*" marks the selected one."""
    from llmd.store.settings import Settings

    with installation.database() as db:
        found = _every_profile(db)
        selected = Settings(db).selection().profile
    if as_json:
        print_json({"profiles": [_public(stored) for stored in found], "selected": selected})
        return
    print_table(
        ("", "NAME", "REVISION", "MODEL", "TEMPERATURE", "MAX TOKENS", "CHANGED"),
        [
            (
                "*" if stored.name == selected else "",
                stored.name,
                str(stored.revision),
                stored.profile.model or "(as loaded)",
                f"{stored.profile.temperature:g}",
                str(stored.profile.max_tokens),
                moment(stored.updated_at),
            )
            for stored in found
        ],
        empty="no profiles",
        numbers=("REVISION", "TEMPERATURE", "MAX TOKENS"),
    )


@profile_group.command("show", cls=Command, cannot="show the profile")
@click.argument("name")
@json_option
@pass_installation
def show(installation: Installation, *, name: str, as_json: bool) -> None:
    """Show every field of the profile NAME."""
    from llmd.store.profiles import Profiles

    with installation.database() as db:
        stored = Profiles(db).get(name)
    if as_json:
        print_json(_public(stored))
        return
    head = [("name", name), ("revision", f"{stored.revision} of {moment(stored.updated_at)}")]
    print_fields(
        [*head, *((key, _shown(value)) for key, value in fields_of(stored.profile).items())]
    )


@profile_group.command(
    "set", cls=Command, cannot="set the profile", short_help="Create a profile or change it."
)
@click.argument("name")
@click.argument("settings", metavar="[FIELD=VALUE]...", nargs=-1)
@click.option(
    "--file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Read fields from a JSON object, as `llmd profile export` prints it.",
)
@json_option
@pass_installation
def set_profile(
    installation: Installation,
    *,
    name: str,
    settings: tuple[str, ...],
    file: Path | None,
    as_json: bool,
) -> None:
    """Change fields of the profile NAME, or create it; other fields stay as they are.

    Write numbers and lists as in JSON, texts without quotes, and null to remove a value:

    \b
      llmd profile set default temperature=0.2 'system=You are brief.'
      llmd profile set default 'stop=["END"]' seed=null
    """  # noqa: D301 - click's mark for lines that are kept as they are
    from llmd.models.kinds import check_generates
    from llmd.store import profiles

    if not settings and file is None:
        raise click.UsageError("say what to change: FIELD=VALUE, or --file FILE")
    changes = (read_object(file) if file else {}) | dict(map(parse_setting, settings))
    now = int(time.time())
    with installation.database() as db, db.write() as tx:
        # No other process writes now, so the fields merged here are the ones that are replaced.
        try:
            before: dict[str, Any] = fields_of(profiles.Profiles(db).get(name).profile)
        except UnknownProfile:
            before = {}
        profile = make_profile(before | changes)
        if kind := installation.library.kind(profile.model):
            check_generates(profile.model, kind)
        stored = profiles.put(tx, name, profile, actor=actor(), now=now)
    if as_json:
        print_json(_public(stored))
    else:
        note(f"the profile {name} is now at revision {stored.revision}")
    _warn_of_missing(installation, profile)


@profile_group.command(
    "delete", cls=Command, cannot="delete the profile", short_help="Delete a profile."
)
@click.argument("name")
@pass_installation
def delete(installation: Installation, *, name: str) -> None:
    """Delete the profile NAME, unless it is selected.

    Stored turns keep its name.
    """
    from llmd.store.profiles import Profiles

    with installation.database() as db:
        Profiles(db).delete(name, actor=actor(), now=int(time.time()))
    note(f"the profile {name} is deleted")


@profile_group.command(
    "import",
    cls=Command,
    cannot="import the profiles",
    short_help="Import the profiles of the older project.",
)
@click.argument("file", type=click.Path(path_type=Path))
@json_option
@pass_installation
def import_profiles(installation: Installation, *, file: Path, as_json: bool) -> None:
    """Import all profiles from FILE, the config.json of the older project, or none.

    Profiles of the same name are replaced. The selected profile stays the same.
    """
    from llmd.store import profiles, seed

    found, selected = seed.read_profiles(file)
    now = int(time.time())
    with installation.database() as db, db.write() as tx:
        stored = [
            profiles.put(tx, name, profile, actor=actor(), now=now)
            for name, profile in found.items()
        ]
    if as_json:
        print_json({"profiles": [_public(one) for one in stored], "selected": selected})
        return
    print_table(
        ("NAME", "REVISION", "MODEL"),
        [(one.name, str(one.revision), one.profile.model) for one in stored],
        empty=f"{file} holds no profiles",
        numbers=("REVISION",),
    )
    if selected:
        note(f"{file} selects {selected}: do so here with `llmd model use --profile NAME`")
    for one in stored:
        _warn_of_missing(installation, one.profile)


@profile_group.command(
    "export", cls=Command, cannot="export the profile", short_help="Print a profile as JSON."
)
@click.argument("name")
@pass_installation
def export(installation: Installation, *, name: str) -> None:
    """Print the fields of the profile NAME as JSON, for `llmd profile set --file`."""
    from llmd.store.profiles import Profiles

    with installation.database() as db:
        print_json(fields_of(Profiles(db).get(name).profile))


def _every_profile(db: Database) -> list[StoredProfile]:
    """Return all profiles, sorted by name."""
    from llmd.store.profiles import Profiles

    found: list[StoredProfile] = []
    while page := Profiles(db).list(limit=_PAGE, after=found[-1].name if found else None):
        found += page
    return found


def _public(stored: StoredProfile) -> dict[str, Any]:
    """Return a profile in the form of the HTTP API."""
    head = {"name": stored.name, "revision": stored.revision, "updated_at": stored.updated_at}
    return head | fields_of(stored.profile)


def _shown(value: Any) -> str:
    if value is None or value in ("", []):
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _warn_of_missing(installation: Installation, profile: Profile) -> None:
    """Print a note if the profile names a model that is not in the library."""
    if not profile.model:
        return
    # A folder that cannot be read is no fault of the profile.
    with contextlib.suppress(ConfigError):
        try:
            installation.library.find(profile.model)
        except UnknownModel:
            folder = installation.config.models.dir
            note(f"there is no {profile.model} in {folder} yet: run `llmd model add FILE`")
