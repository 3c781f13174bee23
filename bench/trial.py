"""One server in one round of one scenario: the requests to it, and their results."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct

from bench.load import Answer, Client, Json
from bench.prompts import Prompts
from bench.results import Reading
from bench.servers import Server


class Sizes(Struct, frozen=True, kw_only=True):
    """The sizes of all scenarios. Lengths are in tokens."""

    clients: tuple[int, ...] = (1, 4, 8, 16)
    prompt: int = 160
    shared: int = 24
    """Tokens of the chat template that begin every prompt, and are computed only once."""
    answer: int = 64
    requests_each: int = 8
    """Requests per client. With fewer, start and end, where not all clients ask, weigh more."""
    min_requests: int = 4
    """Least number of requests of all clients together."""
    turns: tuple[int, ...] = (5, 10, 50)
    turns_around: int = 3
    """Turns before and after a measured turn that are taken with it, because single turns vary."""
    turn: int = 64
    sessions: int = 32
    sequences: int = 8
    turns_each: int = 6
    histories: tuple[int, ...] = (1024, 4096)
    edited: int = 256
    long_answer: int = 128
    num_texts: int = 3
    streams: int = 4
    stream_answer: int = 192
    intruder: int = 2048
    busy_clients: tuple[int, ...] = (1, 8)
    busy_tokens: int = 1024
    """Tokens of all answers together."""
    busy_s: float = 30.0
    """Time limit: some servers are a thousand times slower beside a busy process."""
    batches: tuple[int, ...] = (8, 16)
    batch_prompt: int = 128
    batch_answer: int = 256


QUICK = Sizes(
    clients=(1, 2),
    prompt=64,
    answer=8,
    requests_each=2,
    min_requests=1,
    turns=(2, 3),
    turns_around=1,
    turn=24,
    sessions=3,
    sequences=2,
    turns_each=2,
    histories=(128, 256),
    edited=64,
    long_answer=12,
    num_texts=1,
    streams=2,
    stream_answer=48,
    intruder=300,
    busy_clients=(2,),
    busy_tokens=48,
    busy_s=2.0,
    batches=(2,),
    batch_prompt=48,
    batch_answer=16,
)
"""Sizes that only show that everything works; the results mean nothing."""


class Trial:
    """The input of a scenario, and the readings and errors that it adds."""

    def __init__(
        self, server: Server, prompts: Prompts, sizes: Sizes, round_: int, temperature: float
    ) -> None:
        self.server = server
        self.prompts = prompts
        self.sizes = sizes
        self.round = round_
        self.readings: list[Reading] = []
        self.errors: list[str] = []
        self._temperature = temperature

    async def client(self, *, warm_up: bool = True) -> Client:
        """Return a client of the server, by default after a short request as a warm-up."""
        bare = self.server.client()
        defaults: Json = {
            "temperature": self._temperature,
            "seed": self.round,
            "logit_bias": await self.prompts.ban(bare),
        }
        bare.close()
        client = self.server.client(defaults)
        if warm_up:
            prompt = await self.prompts.text(client, 40, "warm", self.round)
            self.check([await client.chat([{"role": "user", "content": prompt}], 4)])
        return client

    def add(self, at: str, what: str, value: float, unit: str) -> None:
        """Add a reading."""
        self.readings.append(Reading(at, what, value, unit))

    def add_first(self, at: str, what: str, answer: Answer) -> None:
        """Add the time to the first token, and the number of prompt tokens computed for it."""
        self.add(at, what, answer.first_s * 1000, "ms")
        if answer.num_computed is not None:
            self.add(at, f"{what}: prompt read", answer.num_computed, "tokens")

    def check(self, answers: list[Answer]) -> list[Answer]:
        """Add the errors of answers; return the answers without an error."""
        self.errors += [answer.error for answer in answers if answer.error]
        return [answer for answer in answers if not answer.error]

    async def together(
        self, num_clients: int, requests: list[Callable[[], Awaitable[Answer]]]
    ) -> tuple[list[Answer], float]:
        """Send requests from `num_clients`, each of which sends the next one after its answer.

        Return the answers in the order of the requests, and the seconds that all took.
        """
        answers: list[Answer | None] = [None] * len(requests)
        todo = iter(enumerate(requests))

        async def ask() -> None:
            for index, request in todo:
                answers[index] = await request()

        began = time.perf_counter()
        await asyncio.gather(*(ask() for _ in range(num_clients)))
        wall_s = time.perf_counter() - began
        return [answer for answer in answers if answer is not None], wall_s


@contextmanager
def neighbour() -> Iterator[None]:
    """Keep the last usable core busy, as another service on the machine would."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
    try:
        os.sched_setaffinity(process.pid, {max(os.sched_getaffinity(0))})
        time.sleep(0.5)
        yield
    finally:
        process.kill()
        process.wait()
