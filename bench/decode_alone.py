"""The time that llama.cpp's decode alone takes for a load: no server, sampling or client.

    python -m bench.decode_alone MODEL LIBRARIES THREADS SIZES SHARED PROMPT ANSWER

prints the generated tokens per second for each number of sequences, as JSON.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time

import msgspec

from bench.alone import Alone
from bench.servers import Setup
from llmd import config
from llmd.engine.process import HUGE_PAGES
from llmd.engine.protocol import Start
from llmd.worker.llama.context import LlamaBackend
from llmd.worker.llama.model import LoadedModel

_AT_ONCE = 8
"""Number of prompts in one batch. With more of them the time per prompt hardly decreases."""


class DecodeAlone(Alone):
    """The batches of a load when all clients are in step, without a server."""

    def __init__(self, setup: Setup) -> None:
        super().__init__("llama_decode alone", setup)

    def measure_load(
        self, sizes: tuple[int, ...], num_shared: int, num_prompt: int, num_answer: int
    ) -> dict[int, float]:
        """Return the generated tokens per second for each number of sequences.

        The first `num_shared` tokens of each prompt are computed before. Raise OSError if the
        program fails.
        """
        numbers = (num_shared, num_prompt, num_answer)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "bench.decode_alone"),
                *(str(self.setup.model), str(self.setup.engine), str(self.setup.num_threads)),
                *(",".join(map(str, sizes)), *map(str, numbers)),
            ],
            check=False,
            capture_output=True,
            text=True,
            env=self.environment() | {"GLIBC_TUNABLES": HUGE_PAGES},
        )
        if done.returncode:
            raise OSError(f"{self.name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        return msgspec.json.decode(done.stdout, type=dict[int, float], strict=False)


def main(model: str, libraries: str, threads: str, sizes: str, *numbers: str) -> None:
    """Print the tokens per second for each of the `sizes`."""
    num_shared, num_prompt, num_answer = map(int, numbers)
    counts = [int(size) for size in sizes.split(",")]
    start = Start(
        model_path=model,
        library_dir=libraries,
        num_context_tokens=max(256, max(counts) * (num_shared + num_prompt + num_answer)),
        max_sequences=max(counts),
        max_batch_tokens=_AT_ONCE * num_prompt,
        num_threads=int(threads),
        num_threads_batch=int(threads),
        kv_type=config.Engine().kv_type,
        max_state_bytes=0,
    )
    backend = LlamaBackend(LoadedModel(start, lambda _done, _variant: None), start)
    # Warm up: the first decode also loads memory and code.
    _seconds(backend, max(counts), 1, 1, 1)
    rates = {
        count: count * num_answer / _seconds(backend, count, num_shared, num_prompt, num_answer)
        for count in counts
    }
    print(json.dumps(rates))


def _seconds(
    backend: LlamaBackend, count: int, num_shared: int, num_prompt: int, num_answer: int
) -> float:
    """Return the seconds to read `count` prompts and then to answer all of them in step."""
    chance = random.Random(count)  # noqa: S311 - not for secrets
    slots = range(count)
    for slot in slots:
        backend.truncate(slot, 0)
        _read(backend, chance, slot, 0, num_shared)
        backend.decode()
    began = time.perf_counter()
    for first in range(0, count, _AT_ONCE):
        for slot in slots[first : first + _AT_ONCE]:
            _read(backend, chance, slot, num_shared, num_prompt)
        backend.decode()
    for position in range(num_shared + num_prompt, num_shared + num_prompt + num_answer - 1):
        for slot in slots:
            _read(backend, chance, slot, position, 1)
        backend.decode()
    return time.perf_counter() - began


def _read(
    backend: LlamaBackend, chance: random.Random, slot: int, position: int, num_tokens: int
) -> None:
    """Add ordinary tokens of any vocabulary to the batch; request the logits of the last one."""
    for at in range(position, position + num_tokens):
        is_last = at == position + num_tokens - 1
        backend.add(chance.randrange(1000, 20000), at, slot, output=is_last)


if __name__ == "__main__":
    main(*sys.argv[1:])
