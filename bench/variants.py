"""Compare the packaged llama.cpp libraries, which select their CPU code, with a native build.

python -m bench.variants MODEL SHIPPED NATIVE [ROUNDS]
"""

from __future__ import annotations

import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NUM_PROMPT = 512
NUM_GENERATED = 128
NUM_SIDE_BY_SIDE = 8


def measure(model: str, folder: Path) -> dict[str, Any]:
    """Load the libraries of `folder` as the worker does; return tokens/s by kind of work."""
    from llmd.worker.cpu.threads import num_usable_cores
    from llmd.worker.cpu.variants import load_best

    os.environ["LLAMA_CPP_LIB_PATH"] = str(folder)
    import llama_cpp.llama_cpp as lib

    quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
    lib.llama_log_set(quiet, None)
    code = load_best(ctypes.CDLL(str(folder / "libggml.so")), folder, [])
    lib.llama_backend_init()
    loaded = lib.llama_model_load_from_file(model.encode(), lib.llama_model_default_params())
    params = lib.llama_context_default_params()
    params.n_ctx, params.n_seq_max = 8192, NUM_SIDE_BY_SIDE
    params.n_batch = params.n_ubatch = NUM_PROMPT
    params.n_threads = params.n_threads_batch = num_usable_cores()
    context = lib.llama_init_from_model(loaded, params)
    memory = lib.llama_get_memory(context)
    batch = lib.llama_batch_init(NUM_PROMPT, 0, 1)

    def step(tokens: list[tuple[int, int]]) -> None:
        """Decode one batch of (sequence, position)."""
        batch.n_tokens = len(tokens)
        for index, (sequence, position) in enumerate(tokens):
            batch.token[index] = 100 + (position * 7 + sequence) % 1000
            batch.pos[index] = position
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = sequence
            batch.logits[index] = index == len(tokens) - 1 or len(tokens) <= NUM_SIDE_BY_SIDE
        if lib.llama_decode(context, batch):
            raise SystemExit("llama_decode failed")

    def rate(num_sequences: int) -> float:
        lib.llama_memory_clear(memory, True)
        num_steps = NUM_GENERATED // num_sequences
        for position in range(4):
            step([(sequence, position) for sequence in range(num_sequences)])
        began = time.perf_counter()
        for position in range(4, 4 + num_steps):
            step([(sequence, position) for sequence in range(num_sequences)])
        return num_steps * num_sequences / (time.perf_counter() - began)

    step([(0, position) for position in range(NUM_PROMPT)])
    lib.llama_memory_clear(memory, True)
    began = time.perf_counter()
    step([(0, position) for position in range(NUM_PROMPT)])
    read = NUM_PROMPT / (time.perf_counter() - began)
    return {
        "code": code,
        f"read {NUM_PROMPT}": read,
        "generate 1": rate(1),
        f"generate {NUM_SIDE_BY_SIDE}": rate(NUM_SIDE_BY_SIDE),
    }


def compare(model: str, setups: dict[str, tuple[str, dict[str, str]]], num_rounds: int) -> None:
    """Measure two setups in turns, and print medians in tokens per second with their ratio.

    A setup is a folder of libraries and variables to add to the environment. Each round measures
    both, each in a process of its own, so that disturbances affect both.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in setups}
    for number in range(num_rounds):
        for name, (folder, environment) in setups.items():
            done = subprocess.run(
                [sys.executable, "-m", "bench.variants", "--one", model, folder],
                check=True,
                capture_output=True,
                text=True,
                env=os.environ | environment,
            )
            found[name].append(json.loads(done.stdout))
        print(f"\rround {number + 1} of {num_rounds}", end="", file=sys.stderr)
    print(file=sys.stderr)
    print("; ".join(f"{name}: {results[0]['code']}" for name, results in found.items()))
    print(f"{'tokens/s':12}", *(f"{name:>9}" for name in setups), f"{'ratio':>6}")
    for what in [what for what in next(iter(found.values()))[0] if what != "code"]:
        first, second = (
            statistics.median(one[what] for one in results) for results in found.values()
        )
        print(f"{what:12} {first:9.1f} {second:9.1f} {first / second:6.2f}")


def main(model: str, shipped: str, native: str, rounds: str = "10") -> None:
    """Measure in turns, and print the comparison."""
    compare(model, {"shipped": (shipped, {}), "native": (native, {})}, int(rounds))


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        print(json.dumps(measure(sys.argv[2], Path(sys.argv[3]))))
    else:
        main(*sys.argv[1:])
