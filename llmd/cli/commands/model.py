"""`llmd model`: manage the GGUF files, and choose the one that is served."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmd.cli.command import Command, Group
from llmd.cli.connection import connect, connection_options
from llmd.cli.installation import Installation, actor, pass_installation
from llmd.cli.output import (
    json_option,
    moment,
    note,
    one_line,
    print_fields,
    print_json,
    print_table,
    size,
    spinner,
)
from llmd.errors import Conflict, InvalidField

if TYPE_CHECKING:
    from llmd.models.library import Library, ModelFile, Progress

# The client waits longer than the engine may take to load, so that the engine's error comes first.
_LOAD_MARGIN_S = 60.0
_LOAD_ELSEWHERE_S = 3600.0


@click.group("model", cls=Group)
def model_group() -> None:
    """Add, show and choose models (GGUF files)."""


@model_group.command("list", cls=Command, cannot="list the models")
@json_option
@pass_installation
def list_models(installation: Installation, *, as_json: bool) -> None:
    """List the models.

    These are the GGUF files in [models] dir and those that packages have installed.
    """
    library = installation.library
    files = library.list()
    kinds = {file.name: _kind(library, file.name) for file in files}
    if as_json:
        print_json({"models": [_public(file) | {"kind": kinds[file.name]} for file in files]})
        return
    print_table(
        ("NAME", "KIND", "SIZE", "CHANGED"),
        [
            (
                file.name,
                kinds[file.name] or "invalid",
                size(file.size_bytes),
                moment(file.modified_at),
            )
            for file in files
        ],
        empty=f"no models in {installation.config.models.dir}: run `llmd model add FILE`",
        numbers=("SIZE",),
    )


@model_group.command("show", cls=Command, cannot="show the model")
@click.argument("name")
@json_option
@pass_installation
def show(installation: Installation, *, name: str, as_json: bool) -> None:
    """Check the file NAME and show the contents of its header."""
    library = installation.library
    file, header = library.find(name), library.check(name)
    if as_json:
        fields = {
            "kind": header.kind.value,
            "architecture": header.architecture,
            "title": header.name,
            "quantisation": header.quantisation,
            "num_parameters": header.num_parameters,
            "num_layers": header.num_layers,
            "num_vocabulary": header.num_vocabulary,
            "num_context_tokens": header.num_context_tokens,
            "gguf_version": header.version,
            "fingerprint": header.fingerprint,
            "chat_template": header.chat_template,
        }
        print_json(_public(file) | fields)
        return
    template = "none: set a template in its profiles" if header.chat_template is None else "yes"
    print_fields(
        [
            ("file", str(file.path)),
            ("size", size(file.size_bytes)),
            ("title", header.name or "-"),
            ("kind", header.kind.value),
            ("architecture", header.architecture),
            ("quantisation", header.quantisation),
            ("parameters", f"{header.num_parameters / 1e6:,.0f} million"),
            ("layers", str(header.num_layers)),
            ("vocabulary", f"{header.num_vocabulary} tokens"),
            ("context", f"{header.num_context_tokens} tokens"),
            ("chat template", template),
            ("fingerprint", header.fingerprint),
        ]
    )


@model_group.command(
    "add", cls=Command, cannot="add the model", short_help="Check a file and copy it to the models."
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", help="The name of the model; default: the name of FILE.")
@click.option("--link", is_flag=True, help="Link to FILE instead of copying it.")
@json_option
@pass_installation
def add(
    installation: Installation, *, file: Path, name: str | None, link: bool, as_json: bool
) -> None:
    """Check FILE and copy it to [models] dir, where a running daemon finds it at once."""
    with _progress_bar(file) as progress:
        added = installation.library.add(file, name=name, link=link, progress=progress)
    kind = _kind(installation.library, added.name)
    if as_json:
        print_json(_public(added) | {"kind": kind})
    elif kind == "decoder":
        note(
            f"{added.name} ({kind}) is in {added.path.parent}: `llmd model use {added.name}` "
            "serves it"
        )
    else:
        note(
            f"{added.name} ({kind}) is in {added.path.parent}: to make embeddings with it, set "
            f'[models] embedding = "{added.name}"'
        )


@model_group.command("remove", cls=Command, cannot="remove the model")
@click.argument("name")
@pass_installation
def remove(installation: Installation, *, name: str) -> None:
    """Remove the file NAME, or the link to it.

    The selected model cannot be removed.
    """
    from llmd.store.settings import Settings

    library = installation.library
    library.find(name)
    with installation.database() as db:
        if Settings(db).selection().model == name:
            raise Conflict(f"{name} is selected: select another model first with `llmd model use`")
    library.remove(name)
    note(f"{name} is removed")


@model_group.command("use", cls=Command, cannot="use the model")
@click.argument("name", required=False)
@click.option(
    "--profile", metavar="NAME", help="Select this profile too; default: keep the present one."
)
@json_option
@connection_options
@pass_installation
def use(
    installation: Installation,
    *,
    name: str | None,
    profile: str | None,
    url: str | None,
    key_file: Path | None,
    as_json: bool,
) -> None:
    """Serve the file NAME from now on, also after a restart.

    A running daemon loads it, which takes an admin key. If it cannot, it keeps the present model.
    If no daemon is running, the choice is stored for the next start.
    """
    from llmd.cli.client import Unreachable

    if name is None and profile is None:
        raise click.UsageError("name a model, or a profile with --profile")
    try:
        chosen = _ask_daemon(installation, name, profile, url, key_file)
    except Unreachable:
        if url is not None:
            # The daemon of another machine was meant. Its choice is not in this database.
            raise
        chosen = _store(installation, name, profile)
    if as_json:
        print_json(chosen)
        return
    when = "" if chosen["serving"] else " from the next start on, because llmd is not running"
    model = chosen["model"] or "the model that is loaded"
    note(f"{model} is served with the profile {chosen['profile']}{when}")


def _ask_daemon(
    installation: Installation,
    name: str | None,
    profile: str | None,
    url: str | None,
    key_file: Path | None,
) -> dict[str, Any]:
    """Let the daemon load the model and select it. Raise `Unreachable` if none is running."""
    # How long an engine on another machine may take is in the configuration of that machine.
    load_s = installation.config.engine.load_timeout_s if url is None else _LOAD_ELSEWHERE_S
    timeout_s = load_s + _LOAD_MARGIN_S
    client = connect(installation, url, key_file, timeout_s=timeout_s, needs_key=False)
    # Without a daemon no key is needed, so a missing key is reported only after this.
    client.request("GET", "/livez")
    if not client.has_key:
        raise InvalidField(
            "llmd is running, so an admin key is needed: set LLMD_KEY, or name the file of the "
            "key with --key-file",
            param="key",
        )
    given = {"model": name, "model_config": profile}
    body = {field: value for field, value in given.items() if value is not None}
    with spinner("loading the model"):
        answer = client.call("POST", "/models/model", body)
    return {"model": answer.get("model"), "profile": answer.get("profile"), "serving": True}


def _store(installation: Installation, name: str | None, profile: str | None) -> dict[str, Any]:
    """Store the choice for the next start, after the checks that the daemon makes too."""
    from llmd.store.profiles import Profiles
    from llmd.store.settings import Settings

    with installation.database() as db:
        before = Settings(db).selection()
        chosen_profile = profile or before.profile
        of_profile = Profiles(db).get(chosen_profile).profile.model
        model = name or of_profile or before.model
        if model is not None:
            installation.library.check_generates(model)
        Settings(db).select(
            model=model, profile=chosen_profile, actor=actor(), now=int(time.time())
        )
    return {"model": model, "profile": chosen_profile, "serving": False}


def _kind(library: Library, name: str) -> str | None:
    kind = library.kind(name)
    return kind.value if kind else None


def _public(file: ModelFile) -> dict[str, Any]:
    return {
        "name": file.name,
        "path": str(file.path),
        "size_bytes": file.size_bytes,
        "modified_at": file.modified_at,
    }


@contextmanager
def _progress_bar(file: Path) -> Iterator[Progress | None]:
    """Yield a function that shows the progress of a copy, or None without a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task(one_line(file.name), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
