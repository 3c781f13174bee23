"""``python -m bench`` measures llmd and other servers in turns."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import msgspec
from rich.console import Console

from bench import machine
from bench.comparison import Comparison
from bench.peers import Peers
from bench.picture import draw
from bench.report import Report, goals_reached, show, show_facts
from bench.results import Record
from bench.runner import Runner
from bench.scenarios import SCENARIOS, Scenario
from bench.servers import Options, Setup
from bench.trial import QUICK, Sizes
from llmd.worker.cpu.threads import num_usable_cores

_ROOT = Path(__file__).resolve().parents[1]
_NAMES = [scenario.name for scenario in SCENARIOS]


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option(
    "--scenario", "names", multiple=True, type=click.Choice(_NAMES), help="Run only this scenario."
)
@click.option("--rounds", type=click.IntRange(min=1), help="Rounds per server.  [default: 5]")
@click.option("--clients", help="Numbers of clients in the scenario load.  [default: 1,4,8,16]")
@click.option(
    "--peer",
    "peers",
    multiple=True,
    default=["llama-server"],
    help="llama-server, llama-cpp-python, or http://HOST:PORT of a running server.",
)
@click.option("--peer-key", default="", help="Key for a running server.")
@click.option("--peer-model", default="default", help="Name of the model on a running server.")
@click.option(
    "--slots", default="8,16", help="Numbers of slots of llama-server in the scenario load."
)
@click.option("--peer-args", default="", help="More arguments for llama-server, such as '-b 512'.")
@click.option(
    "--set", "settings", multiple=True, help="Set an option of llmd, such as engine.parallel=8."
)
@click.option("--model", default="q4_1", help="q4_1 or q4_0 for the small model, or a GGUF file.")
@click.option("--threads", default=0, help="Threads of every server; 0: one per usable core.")
@click.option("--temperature", default=0.0, help="0: always the most likely token.")
@click.option("--quick", is_flag=True, help="Run one tiny round, to check that everything works.")
@click.option(
    "--output", default="var/bench", type=click.Path(path_type=Path), help="Folder for the results."
)
def main(
    *,
    names: tuple[str, ...],
    rounds: int | None,
    clients: str | None,
    peers: tuple[str, ...],
    peer_key: str,
    peer_model: str,
    slots: str,
    peer_args: str,
    settings: tuple[str, ...],
    model: str,
    threads: int,
    temperature: float,
    quick: bool,
    output: Path,
) -> None:
    """Measure llmd and its peers in turns, with the same prompts, on this machine."""
    # The servers run in sessions of their own, so this process must stop them when it ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(width=None if sys.stdout.isatty() else 160)
    sizes = QUICK if quick else Sizes()
    if clients:
        sizes = msgspec.structs.replace(sizes, clients=_numbers(clients))
    setup = Setup(
        model=_model(model),
        engine=(_ROOT / ".venv/engine").resolve(),
        peer=_path("peer.sh", "--path"),
        python_peer=_path("peer.sh", "--python"),
        num_threads=threads or num_usable_cores(),
    )
    compared = Peers(
        names=peers,
        slots=_numbers(slots),
        more=tuple(peer_args.split()),
        key=peer_key,
        model=peer_model,
    )
    try:
        compared.make(setup, tries_slots=False)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    chosen = [
        scenario
        for scenario in SCENARIOS
        if (scenario.name in names if names else not scenario.is_extra)
    ]
    runner = Runner(setup, compared, _options(settings), sizes, temperature)
    facts = machine.facts() | {
        "model": f"{setup.model.name}, {setup.model.stat().st_size / 1e6:.0f} MB",
        "llama.cpp": setup.engine.name,
    }
    show_facts(console, facts)
    output.mkdir(parents=True, exist_ok=True)
    file = output / time.strftime("%Y%m%d-%H%M%S.json")
    used = {
        "temperature": temperature,
        "threads": setup.num_threads,
        "llmd": list(settings),
        "llama-server": peer_args,
        "sizes": sizes,
    }
    records: list[Record] = []
    comparisons: list[Comparison] = []
    for scenario in chosen:
        found = _measure(console, runner, scenario, rounds or (1 if quick else 5))
        records += found
        Report(facts=facts, settings=used, records=records).save(file)
        comparison = Comparison(scenario.name, found)
        comparisons.append(comparison)
        show(console, scenario.title, comparison, found)
        if scenario.name == "load":
            draw(comparison, f"{setup.model.name}, {facts['processor']}", file.with_suffix(".png"))
    console.print(f"{goals_reached(comparisons)}; all results are in {file}", highlight=False)


def _measure(console: Console, runner: Runner, scenario: Scenario, num_rounds: int) -> list[Record]:
    with console.status(scenario.name) as status:

        def tell(number: int, server: str) -> None:
            status.update(f"{scenario.name}, round {number} of {num_rounds}: {server}")

        return list(runner.run(scenario, num_rounds, tell))


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(number) for number in text.split(",")}))
    except ValueError:
        raise click.UsageError(f"{text!r} is not a list of numbers such as 1,4,8") from None


def _options(settings: tuple[str, ...]) -> Options:
    """Return settings of the form SECTION.OPTION=VALUE as options by section."""
    options: Options = {}
    for setting in settings:
        name, is_given, value = setting.partition("=")
        section, _, option = name.partition(".")
        if not (option and is_given):
            raise click.UsageError(f"{setting!r} is not of the form SECTION.OPTION=VALUE")
        try:
            options.setdefault(section, {})[option] = msgspec.json.decode(value)
        except msgspec.DecodeError:
            options.setdefault(section, {})[option] = value
    return options


def _model(name: str) -> Path:
    scripts = {"q4_1": ("model.sh", "--path"), "q4_0": ("peer.sh", "--model")}
    file = _path(*scripts[name]) if name in scripts else Path(name).resolve()
    if not file.is_file():
        raise click.UsageError(f"{file} does not exist; run make peer first")
    return file


def _path(script: str, option: str) -> Path:
    """Return the path that a script of packaging/dev prints."""
    command = [str(_ROOT / "packaging/dev" / script), option]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Path(done.stdout.strip())


if __name__ == "__main__":
    main()
