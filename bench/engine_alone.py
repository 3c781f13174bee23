"""llmd's engine without HTTP: the worker, and the daemon's side of its socket."""

from __future__ import annotations

import random
import time

from bench.alone import Alone
from bench.servers import Setup
from llmd import config
from llmd.engine.engine import Engine, Request
from llmd.engine.generation import Generation
from llmd.engine.model import Model
from llmd.engine.protocol import Done, Progress, Sampling, Started, TokenPrompt


class EngineAlone(Alone):
    """llmd's engine, measured without HTTP."""

    def __init__(self, setup: Setup) -> None:
        super().__init__("llmd's engine", setup)

    def measure(self, sizes: tuple[int, ...], num_prompt: int, num_answer: int) -> dict[int, float]:
        """Return the tokens per second for each number of sequences, while all of them generate."""
        settings = config.Engine(
            threads=self.setup.num_threads,
            threads_batch=self.setup.num_threads,
            parallel=self.need.slots,
            context=self.need.context(self.need.slots),
            draft=0,
        )
        engine = Engine(settings, config.Cache(ram_bytes=0, disk_bytes=0))
        try:
            engine.switch(Model("a.gguf", str(self.setup.model)), lambda: None)
            return {size: _rate(engine, size, num_prompt, num_answer) for size in sizes}
        finally:
            engine.close()


def _rate(engine: Engine, size: int, num_prompt: int, num_answer: int) -> float:
    generations = [_begin(engine, size, number, num_prompt, num_answer) for number in range(size)]
    for generation in generations:
        _wait(generation, Progress)
    began, num_before = time.perf_counter(), engine.status().num_completion_tokens
    # Prompts of the same length are read in their order, so the first sequence ends first.
    _wait(generations[0], Done)
    took_s = time.perf_counter() - began
    rate = (engine.status().num_completion_tokens - num_before) / took_s
    for generation in generations[1:]:
        _wait(generation, Done)
    return rate


def _begin(engine: Engine, size: int, number: int, num_prompt: int, num_answer: int) -> Generation:
    chance = random.Random(f"{size} {number}")  # noqa: S311 - not for secrets
    return engine.submit(
        Request(
            owner="bench",
            session=f"{size} {number}",
            # Ordinary tokens of any vocabulary.
            prompt=TokenPrompt(tokens=[chance.randrange(1000, 20000) for _ in range(num_prompt)]),
            num_turns=0,
            sampling=Sampling(temperature=0),
            max_tokens=num_answer,
            max_context_tokens=None,
            stop=[],
            ignores_end=True,
        )
    )


def _wait(generation: Generation, kind: object) -> None:
    while True:
        event = generation.next(60)
        if event is None:
            raise OSError("no token came for a minute")
        if isinstance(event, kind) and not isinstance(event, Started):  # type: ignore[arg-type]
            return
        if isinstance(event, Done):
            raise OSError("an answer ended too early")
