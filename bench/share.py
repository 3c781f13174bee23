"""Measure how much of a step is spent in Python, outside llama.cpp's decode and sampling.

    share.py MODEL

The worker's scheduler runs in this process with the real model, and a stopwatch measures decode and
sampling. numpy and llama.cpp do the sampling, which is reported separately.
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


class Stopwatch:
    """Sum up the seconds that functions take."""

    def __init__(self) -> None:
        self.spent_s = 0.0

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does the same and is measured."""

        def measured(*args: Any) -> Any:
            began = time.perf_counter()
            result = call(*args)
            self.spent_s += time.perf_counter() - began
            return result

        return measured


def main(model: str) -> None:
    """Print how the time of a step divides, by number of sequences."""
    # As in a worker, so that short calls do not wait for the GIL.
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
    decode, choose = Stopwatch(), Stopwatch()
    backend.decode = decode.around(backend.decode)  # type: ignore[method-assign]
    LlamaSampler._choose = choose.around(LlamaSampler._choose)  # type: ignore[method-assign]
    events: list[Event] = []
    scheduler = Scheduler(backend, events.append, max_state_bytes=0, clock=time.monotonic)
    print(f"{'sequences':>9} {'step ms':>8} {'decode ms':>10} {'sample':>7} {'Python':>7}")
    for number in NUM_SEQUENCES:
        shares = [
            _measure(scheduler, number, round_, decode, choose) for round_ in range(NUM_ROUNDS)
        ]
        step, decoded, choice, rest = map(statistics.median, zip(*shares, strict=True))
        print(f"{number:9} {step:8.2f} {decoded:10.2f} {choice:7.2%} {rest:7.2%}")


def _measure(
    scheduler: Scheduler, number: int, round_: int, decode: Stopwatch, choose: Stopwatch
) -> tuple[float, float, float, float]:
    """Return the ms of a step, the ms of its decode, and the shares of sampling and Python."""
    chance = random.Random(round_)  # noqa: S311 - not for secrets
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
    # A step reads at least one prompt; after that, all sequences generate.
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
