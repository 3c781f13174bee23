"""`llmd tune`: measure which threads and batch size suit this machine and its model."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from llmd.cli.command import Command
from llmd.cli.installation import Installation, pass_installation
from llmd.cli.output import json_option, note, print_json, print_table

if TYPE_CHECKING:
    from llmd.engine.model import Model
    from llmd.engine.tuning import Speed, Tuned, Tuner

FILE_NAME = "50-tuned.toml"


@click.command(
    "tune", cls=Command, cannot="measure", short_help="Find the best threads and batch size."
)
@click.argument("name", required=False)
@click.option("--write", is_flag=True, help=f"Write the best settings to conf.d/{FILE_NAME}.")
@json_option
@pass_installation
def tune(installation: Installation, *, name: str | None, write: bool, as_json: bool) -> None:
    """Run the model NAME with several numbers of threads and batch sizes.

    The table shows the speed of each setting and marks the best ones: of those that are equally
    fast, the fewest threads and the smallest batch. Without NAME, it runs the model that llmd
    would serve after a start.

    Nothing is changed without --write, and a running llmd uses the new settings only after a
    restart. Stop llmd before you measure, so that the machine has nothing else to do.
    """
    from llmd.engine.tuning import Tuner

    model = _model(installation, name)
    settings = installation.config.engine
    if _is_running(installation):
        note("llmd is running: its requests disturb the measurement")
    by_threads, by_batch, tuned = _measure(Tuner(model, settings))
    written = _write(installation, tuned) if write else None
    if as_json:
        speeds = [*by_threads, *by_batch]
        found: dict[str, Any] = {"model": model.name, "engine": msgspec.to_builtins(tuned)}
        found["speeds"] = msgspec.to_builtins(speeds)
        print_json(found | {"written": None if written is None else str(written)})
        return
    print_table(
        ("THREADS", "BATCH", "PROMPT tok/s", "ALONE tok/s", "TOGETHER tok/s", ""),
        [_line(speed, tuned) for speed in (*by_threads, *by_batch)],
        empty="",
        numbers=("THREADS", "BATCH", "PROMPT tok/s", "ALONE tok/s", "TOGETHER tok/s"),
    )
    click.echo("\n" + _toml(tuned), nl=False)
    if written is None:
        note(f"\n`llmd tune --write` writes this to {_file(installation)}")
    else:
        note(f"\nwritten to {written}: apply it with `systemctl restart llmd`")


def _measure(tuner: Tuner) -> tuple[list[Speed], list[Speed], Tuned]:
    """Measure the numbers of threads, then the batch sizes with the best of them."""
    from llmd.engine.tuning import BATCHES, choose, thread_counts

    counts = thread_counts(len(os.sched_getaffinity(0)))
    middle = BATCHES[len(BATCHES) // 2]
    with _progress(len(counts) + len(BATCHES) - 1) as step:
        by_threads = [step(tuner, threads, middle) for threads in counts]
        best = choose(by_threads, by_threads).threads_batch
        others = [step(tuner, best, batch) for batch in BATCHES if batch != middle]
    by_batch = [*others, *(speed for speed in by_threads if speed.threads == best)]
    return by_threads, others, choose(by_threads, by_batch)


@contextmanager
def _progress(num_steps: int) -> Iterator[Any]:
    """Yield a function that measures a setting and shows the progress on standard error."""
    if not sys.stderr.isatty():

        def measure(tuner: Tuner, threads: int, batch: int) -> Speed:
            note(f"measuring {threads} threads, batch {batch}")
            return tuner.measure(threads, batch)

        yield measure
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("measuring", total=num_steps)

        def measure_and_show(tuner: Tuner, threads: int, batch: int) -> Speed:
            bar.update(task, description=f"{threads} threads, batch {batch}")
            speed = tuner.measure(threads, batch)
            bar.advance(task)
            return speed

        yield measure_and_show


def _model(installation: Installation, name: str | None) -> Model:
    """Return the model `name`, the selected one, the default or the first.

    Raise `UnknownModel` if there is none, and `ModelInvalid` if it generates no text.
    """
    from llmd.engine.model import Model
    from llmd.store.settings import Settings

    library = installation.library
    if name is None:
        with installation.database() as db:
            name = Settings(db).selection().model
    name = name or installation.config.models.default
    if not name:
        name = library.first()
    file = library.find(name)
    library.check_generates(name)
    return Model(name, str(file.path))


def _is_running(installation: Installation) -> bool:
    address = installation.address
    try:
        socket.create_connection((address.host, address.port), timeout=1).close()
    except OSError:
        return False
    return True


def _line(speed: Speed, tuned: Tuned) -> tuple[str, ...]:
    marks = ["threads"] if speed.threads == tuned.threads else []
    if speed.threads == tuned.threads_batch:
        marks += ["threads_batch", *(["batch"] if speed.batch == tuned.batch else [])]
    rates = (f"{rate:.1f}" for rate in (speed.read, speed.alone, speed.together))
    return (str(speed.threads), str(speed.batch), *rates, ", ".join(marks))


def _toml(tuned: Tuned) -> str:
    lines = [f"{name} = {value}" for name, value in msgspec.structs.asdict(tuned).items()]
    return "\n".join(["[engine]", *lines, ""])


def _file(installation: Installation) -> Path:
    return installation.config_path.parent / "conf.d" / FILE_NAME


def _write(installation: Installation, tuned: Tuned) -> Path:
    """Replace the file in one step, so that it is never incomplete."""
    file = _file(installation)
    file.parent.mkdir(exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(f"# Written by `llmd tune` for this machine and its model.\n{_toml(tuned)}")
    new.chmod(0o644)
    new.replace(file)
    return file
