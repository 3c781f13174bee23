"""Measure in turns: every server once per round, so that disturbances affect all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from bench.batched import BatchedBench
from bench.decode_alone import DecodeAlone
from bench.engine_alone import EngineAlone
from bench.goals import NO_LOOKUP
from bench.machine import DisturbanceMeter
from bench.peers import Peers
from bench.prompts import Prompts
from bench.results import Record
from bench.scenarios import Scenario
from bench.servers import Llmd, Need, Options, Server, Setup
from bench.trial import Sizes, Trial


class Runner:
    """Run scenarios with the same prompts for every server."""

    def __init__(
        self, setup: Setup, peers: Peers, options: Options, sizes: Sizes, temperature: float
    ) -> None:
        self._setup = setup
        self._peers = peers
        self._options = options
        self._sizes = sizes
        self._temperature = temperature
        self._prompts = Prompts()

    def servers(self, scenario: Scenario) -> list[Server]:
        """Return the servers that a scenario compares, llmd first."""
        engine = self._options.get("engine", {}) | {"draft": 0}
        without_draft = Llmd(NO_LOOKUP, self._setup, self._options | {"engine": engine})
        if scenario.batched_bench_only:
            return [EngineAlone(self._setup), BatchedBench(self._setup), without_draft]
        found: list[Server] = [Llmd("llmd", self._setup, self._options)]
        if scenario.llmd_only:
            return found
        if scenario.with_lookup_off:
            found.append(without_draft)
        if scenario.with_decode_alone:
            found.append(DecodeAlone(self._setup))
        peers = self._peers.make(self._setup, tries_slots=scenario.tries_slots)
        return found + [peer for peer in peers if peer.can_restart or not scenario.restarts]

    def run(
        self, scenario: Scenario, num_rounds: int, on_start: Callable[[int, str], None]
    ) -> Iterator[Record]:
        """Measure, and yield each record as soon as it is complete."""
        servers = self.servers(scenario)
        need = scenario.need(self._sizes)
        for number in range(1, num_rounds + 1):
            # The order rotates, so that a machine that slows down favours no server.
            first = (number - 1) % len(servers)
            for server in servers[first:] + servers[:first]:
                on_start(number, server.name)
                yield self._measure(scenario, server, number, need)

    def _measure(self, scenario: Scenario, server: Server, number: int, need: Need) -> Record:
        trial = Trial(server, self._prompts, self._sizes, number, self._temperature)
        cpu_code, disturbance = "", None
        try:
            server.open(need)
            cpu_code = server.cpu_code
            meter = DisturbanceMeter()
            asyncio.run(scenario.run(trial))
            disturbance = meter.read() if server.is_own else None
        # One server's failure must not end a run of an hour; the report shows it.
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
            disturbance=disturbance,
        )
