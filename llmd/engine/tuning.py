"""Find the numbers of threads and the batch size with which this machine runs a model best."""

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
"""Tokens in the prompt whose prefill is timed."""

NUM_ANSWER = 48
"""Tokens in each answer."""

NUM_TOGETHER = 8
"""The largest number of requests that generate at the same time."""

NUM_SHORT = 16
"""Tokens in the prompts of the requests that generate at the same time."""

NUM_TIMES = 3
"""How often each setting is measured."""

ENOUGH_S = 30.0
"""After this time a setting is not measured again, even if `NUM_TIMES` is not reached."""

_SILENCE_S = 600.0
"""A measurement fails if no token comes for this long."""


class Speed(Struct, frozen=True, kw_only=True):
    """The speed of one setting in tokens per second.

    Each number is the best of several measurements, because other programs on the machine can
    only make a measurement slower.
    """

    threads: int
    """Threads for generation and for prefill."""
    batch: int
    """Tokens in a step at most."""
    read: float
    """Speed of the prefill of one prompt."""
    alone: float
    """Speed of generation for a single request."""
    together: float
    """Total speed of generation for `NUM_TOGETHER` requests, or fewer if ``parallel`` is lower."""


class Tuned(Struct, frozen=True, kw_only=True):
    """The best values for the settings of the section ``[engine]``."""

    threads: int
    threads_batch: int
    batch: int


def thread_counts(num_cores: int) -> list[int]:
    """Return the numbers of threads to try: one, half of the cores, all but one, and all."""
    return sorted({1, max(1, num_cores // 2), max(1, num_cores - 1), num_cores})


BATCHES = (128, 384, 512)
"""The batch sizes to try."""


class Tuner:
    """Measure a model with different settings, each in a worker of its own."""

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
            # Only threads and batch may differ: no drafts, and a context just large enough.
            draft=0,
            parallel=num_together,
            context=max(256, num_together * (NUM_PROMPT + NUM_ANSWER + 64)),
        )

    def measure(self, threads: int, batch: int) -> Speed:
        """Return the speed of a setting.

        Raise `EngineFailed` or `ModelInvalid` if the model cannot be run.
        """
        settings = msgspec.structs.replace(
            self._settings, threads=threads, threads_batch=threads, batch=batch
        )
        reads: list[float] = []
        alones: list[float] = []
        togethers: list[float] = []
        with self._engine(settings) as engine:
            # The first request is slower, since some buffers are only created then.
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
        # No KV states are kept: the state of one prompt must not shorten the next prefill.
        cache = config.Cache(ram_bytes=0, disk_bytes=0)
        engine = Engine(settings, cache, self._worker_settings)
        try:
            engine.switch(self._model, lambda: None)
            yield engine
        finally:
            engine.close()

    def _prompt(self, engine: Engine, num_tokens: int, number: int) -> list[int]:
        """Return random tokens that depend only on `number`, so that all settings get the same."""
        info = engine.status().info
        num_vocabulary = info.num_vocabulary if info else 0
        chance = random.Random(number)  # noqa: S311 - not used for secrets
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
    raise EngineFailed(f"the engine generated no token for {_SILENCE_S:g} s")


NEAR = 0.95
"""Settings that reach this part of the best speed count as equally fast: the rest is noise."""


def choose(by_threads: Iterable[Speed], by_batch: Iterable[Speed]) -> Tuned:
    """Return the fewest threads and the smallest batch among the settings that are equally fast.

    A free core is left for other programs, and answers stutter less during a prefill if steps are
    small.
    """
    speeds = list(by_threads)
    return Tuned(
        threads=_least(speeds, lambda one: one.alone, lambda one: one.threads),
        # Prefill and generation for several requests both use these threads: the geometric mean
        # keeps either from becoming much slower.
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
