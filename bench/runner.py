"""Measure in turns: in each round every server once, so that what else happens falls on all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from bench.batched import BatchedBench
from bench.decode_alone import DecodeAlone
from bench.engine_alone import EngineAlone
from bench.goals import NO_LOOKUP
from bench.machine import Watch
from bench.peers import Peers
from bench.prompts import Prompts
from bench.results import Record
from bench.scenarios import Scenario
from bench.servers import Llmd, Need, Options, Place, Server
from bench.trial import Sizes, Trial


class Runner:
    """All scenarios of one run, over the same prompts for every server."""

    def __init__(
        self, place: Place, peers: Peers, options: Options, sizes: Sizes, temperature: float
    ) -> None:
        self._place = place
        self._peers = peers
        self._options = options
        self._sizes = sizes
        self._temperature = temperature
        self._prompts = Prompts()

    def servers(self, scenario: Scenario) -> list[Server]:
        """Return whom a scenario compares, llmd first."""
        engine = self._options.get("engine", {}) | {"draft": 0}
        unguessing = Llmd(NO_LOOKUP, self._place, self._options | {"engine": engine})
        if scenario.batched_bench_only:
            return [EngineAlone(self._place), BatchedBench(self._place), unguessing]
        found: list[Server] = [Llmd("llmd", self._place, self._options)]
        if scenario.llmd_only:
            return found
        if scenario.with_lookup_off:
            found.append(unguessing)
        if scenario.with_decode_alone:
            found.append(DecodeAlone(self._place))
        peers = self._peers.make(self._place, tries_slots=scenario.tries_slots)
        return found + [peer for peer in peers if peer.can_restart or not scenario.restarts]

    def run(
        self, scenario: Scenario, num_rounds: int, on_start: Callable[[int, str], None]
    ) -> Iterator[Record]:
        """Measure, and give each record as soon as it is there."""
        servers = self.servers(scenario)
        need = scenario.need(self._sizes)
        for number in range(1, num_rounds + 1):
            # Each begins a round in its turn: a machine that slows down meanwhile favours nobody.
            first = (number - 1) % len(servers)
            for server in servers[first:] + servers[:first]:
                on_start(number, server.name)
                yield self._measure(scenario, server, number, need)

    def _measure(self, scenario: Scenario, server: Server, number: int, need: Need) -> Record:
        trial = Trial(server, self._prompts, self._sizes, number, self._temperature)
        cpu_code, weather = "", None
        try:
            server.open(need)
            cpu_code = server.cpu_code
            watch = Watch()
            asyncio.run(scenario.run(trial))
            weather = watch.read() if server.is_own else None
        # One server's failure must not end a run of an hour; it is in the table.
        except Exception as error:  # noqa: BLE001
            trial.errors.append(f"{type(error).__name__}: {error}")
        finally:
            server.close()
        return Record(
            scenario=scenario.name,
            server=server.name,
            round=number,
            cpu_code=cpu_code,
            readings=trial.readings,
            errors=trial.errors,
            weather=weather,
        )
