"""Find the threads and the batch with which this machine runs a model best."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import msgspec
from msgspec import Struct

from llmd import config
from llmd.engine.engine import Engine, Request
from llmd.engine.generation import Generation
from llmd.engine.model import Model
from llmd.engine.process import WORKER_SETTINGS, WorkerSettings
from llmd.engine.protocol import Done, Sampling, TokenPrompt
from llmd.errors import EngineFailed

NUM_PROMPT = 512
"""Tokens of the prompt whose reading is timed."""

NUM_ANSWER = 48
NUM_TOGETHER = 8
NUM_SHORT = 16
"""Tokens of the prompts of those who generate together."""

NUM_TIMES = 3
ENOUGH_S = 30.0
"""After so long with one setting, what was measured must do."""

_SILENCE_S = 600.0


class Speed(Struct, frozen=True, kw_only=True):
    """What one setting gives, in tokens a second.

    The best of several times: others on the machine only ever make it slower.
    """

    threads: int
    """For generation and for reading alike."""
    batch: int
    read: float
    """Of one prompt."""
    alone: float
    """Generated for one request."""
    together: float
    """Generated for all of as many as run side by side."""


class Tuned(Struct, frozen=True, kw_only=True):
    """The settings of [engine] to take."""

    threads: int
    threads_batch: int
    batch: int


def thread_counts(num_cores: int) -> list[int]:
    """Return the numbers of threads that are worth trying: the ends, the half, one core free."""
    return sorted({1, max(1, num_cores // 2), max(1, num_cores - 1), num_cores})


BATCHES = (128, 384, 512)


class Tuner:
    """Run a model with one setting after another, each in a worker of its own."""

    def __init__(
        self,
        model: Model,
        settings: config.Engine,
        worker_settings: WorkerSettings = WORKER_SETTINGS,
    ) -> None:
        self._model = model
        self._worker_settings = worker_settings
        num_together = min(NUM_TOGETHER, settings.parallel)
        self._num_together = num_together
        self._settings = msgspec.structs.replace(
            settings,
            # Nothing else shall differ: no guesses, and room for just what is asked.
            draft=0,
            parallel=num_together,
            context=max(256, num_together * (NUM_PROMPT + NUM_ANSWER + 64)),
        )

    def measure(self, threads: int, batch: int) -> Speed:
        """Return the speed with a setting.

        Raise `EngineFailed` or `ModelInvalid` when the model does not run.
        """
        settings = msgspec.structs.replace(
            self._settings, threads=threads, threads_batch=threads, batch=batch
        )
        reads: list[float] = []
        alones: list[float] = []
        togethers: list[float] = []
        with self._engine(settings) as engine:
            # The first request pays for what is made only once.
            self._ask(engine, [self._prompt(engine, NUM_SHORT, 0)], 4)
            began = time.monotonic()
            for number in range(1, NUM_TIMES + 1):
                (one,) = self._ask(engine, [self._prompt(engine, NUM_PROMPT, number)])
                reads.append(1000 * NUM_PROMPT / one.prefill_ms)
                alones.append(1000 * one.num_completion_tokens / one.decode_ms)
                prompts = [
                    self._prompt(engine, NUM_SHORT, 100 * number + which)
                    for which in range(self._num_together)
                ]
                several = self._ask(engine, prompts)
                num_tokens = sum(done.num_completion_tokens for done in several)
                togethers.append(1000 * num_tokens / max(done.decode_ms for done in several))
                if time.monotonic() - began > ENOUGH_S:
                    break
        return Speed(
            threads=threads,
            batch=batch,
            read=max(reads),
            alone=max(alones),
            together=max(togethers),
        )

    @contextmanager
    def _engine(self, settings: config.Engine) -> Iterator[Engine]:
        # No states: what one prompt left must not shorten the next.
        cache = config.Cache(ram_bytes=0, disk_bytes=0)
        engine = Engine(settings, cache, self._worker_settings)
        try:
            engine.switch(self._model, lambda: None)
            yield engine
        finally:
            engine.close()

    def _prompt(self, engine: Engine, num_tokens: int, number: int) -> list[int]:
        """Return tokens that are the same for every setting, and like no other prompt's."""
        info = engine.status().info
        num_vocabulary = info.num_vocabulary if info else 0
        chance = random.Random(number)  # noqa: S311 - nothing is kept secret by it
        return [chance.randrange(max(1, num_vocabulary)) for _ in range(num_tokens)]

    def _ask(
        self, engine: Engine, prompts: list[list[int]], num_answer: int = NUM_ANSWER
    ) -> list[Done]:
        generations = [
            engine.submit(
                Request(
                    owner="tune",
                    session=str(number),
                    prompt=TokenPrompt(tokens=prompt),
                    num_turns=0,
                    sampling=Sampling(temperature=0),
                    max_tokens=num_answer,
                    max_context_tokens=None,
                    stop=[],
                    ignores_end=True,
                )
            )
            for number, prompt in enumerate(prompts)
        ]
        return [_wait(generation) for generation in generations]


def _wait(generation: Generation) -> Done:
    deadline = time.monotonic() + _SILENCE_S
    while time.monotonic() < deadline:
        event = generation.next(1.0)
        if isinstance(event, Done):
            return event
        if event is not None:
            deadline = time.monotonic() + _SILENCE_S
    raise EngineFailed(f"no token came for {_SILENCE_S:g} s")


NEAR = 0.95
"""What is within the noise of a measurement of the best: the cheaper setting is taken then."""


def choose(by_threads: Iterable[Speed], by_batch: Iterable[Speed]) -> Tuned:
    """Return what to take: of what is as fast, the fewest threads and the smallest batch.

    A core that is left free is there for all else the machine does, and small steps keep answers
    smooth while prompts are read.
    """
    speeds = list(by_threads)
    return Tuned(
        threads=_least(speeds, lambda one: one.alone, lambda one: one.threads),
        # Reading, and generating for several, both take these threads: neither may suffer much.
        threads_batch=_least(
            speeds, lambda one: (one.read * one.together) ** 0.5, lambda one: one.threads
        ),
        batch=_least(list(by_batch), lambda one: one.read, lambda one: one.batch),
    )


def _least(
    speeds: list[Speed], rate: Callable[[Speed], float], cost: Callable[[Speed], int]
) -> int:
    best = max(map(rate, speeds))
    return min(cost(one) for one in speeds if rate(one) >= NEAR * best)
