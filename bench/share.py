"""How much of a step is Python's: all but llama.cpp's decode and the choice of the tokens.

    share.py MODEL

The scheduler of the worker runs in this process, over the real model, with a watch around the two.
Choosing is numpy's and llama.cpp's work, and is told apart.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmd import config
from llmd.engine.protocol import Event, Sampling, Start, Submit, TokenPrompt
from llmd.worker.llama.context import LlamaBackend
from llmd.worker.llama.model import LoadedModel
from llmd.worker.llama.sampler import LlamaSampler
from llmd.worker.scheduling.scheduler import Scheduler

NUM_SEQUENCES = (1, 8, 16)
NUM_PROMPT = 128
NUM_STEPS = 200
NUM_ROUNDS = 5


class Watch:
    """Seconds spent in what is watched."""

    def __init__(self) -> None:
        self.spent_s = 0.0

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does the same and is watched."""

        def watched(*args: Any) -> Any:
            began = time.perf_counter()
            result = call(*args)
            self.spent_s += time.perf_counter() - began
            return result

        return watched


def main(model: str) -> None:
    """Print where the time of a step goes, by number of sequences."""
    # As in a worker: a short call shall not wait for the GIL.
    sys.setswitchinterval(0.0005)
    settings = config.Engine()
    start = Start(
        model_path=model,
        library_dir=str(Path(sys.prefix, "engine")),
        num_context_tokens=max(NUM_SEQUENCES) * 512,
        max_sequences=max(NUM_SEQUENCES),
        max_batch_tokens=settings.batch,
        num_threads=settings.threads,
        num_threads_batch=settings.threads_batch,
        kv_type=settings.kv_type,
        max_state_bytes=0,
    )
    backend = LlamaBackend(LoadedModel(start, lambda _done, _variant: None), start)
    decode, choose = Watch(), Watch()
    backend.decode = decode.around(backend.decode)  # type: ignore[method-assign]
    LlamaSampler._choose = choose.around(LlamaSampler._choose)  # type: ignore[method-assign]
    events: list[Event] = []
    scheduler = Scheduler(backend, events.append, max_state_bytes=0, clock=time.monotonic)
    print(f"{'sequences':>9} {'step ms':>8} {'decode ms':>10} {'choice':>7} {'Python':>7}")
    for number in NUM_SEQUENCES:
        shares = [
            _measure(scheduler, number, round_, decode, choose) for round_ in range(NUM_ROUNDS)
        ]
        step, decoded, choice, rest = map(statistics.median, zip(*shares, strict=True))
        print(f"{number:9} {step:8.2f} {decoded:10.2f} {choice:7.2%} {rest:7.2%}")


def _measure(
    scheduler: Scheduler, number: int, round_: int, decode: Watch, choose: Watch
) -> tuple[float, float, float, float]:
    """Return ms of a step, ms of its decode, and the shares of choice and Python."""
    chance = random.Random(round_)  # noqa: S311 - nothing is kept secret by it
    for sequence in range(number):
        scheduler.submit(
            Submit(
                id=sequence,
                owner="bench",
                session=f"{round_} {sequence}",
                prompt=TokenPrompt(
                    tokens=[chance.randrange(1000, 20000) for _ in range(NUM_PROMPT)]
                ),
                sampling=Sampling(temperature=0),
                max_tokens=NUM_STEPS + 2 * number + 10,
                ignores_end=True,
            )
        )
    # A step reads one prompt or more; from then on all generate.
    for _ in range(number + 5):
        scheduler.step()
    decode.spent_s = choose.spent_s = 0.0
    began = time.perf_counter()
    for _ in range(NUM_STEPS):
        scheduler.step()
    took_s = time.perf_counter() - began
    rest_s = took_s - decode.spent_s - choose.spent_s
    for sequence in range(number):
        scheduler.cancel(sequence)
    return (
        1000 * took_s / NUM_STEPS,
        1000 * decode.spent_s / NUM_STEPS,
        choose.spent_s / took_s,
        rest_s / took_s,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
