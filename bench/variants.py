"""Compare the llama.cpp libraries that are shipped, which choose the CPU code, with a native build.

    variants.py MODEL SHIPPED NATIVE [ROUNDS]

Each round measures one and then the other, in a process of its own each, so that what else the
machine does falls on both. Printed are medians in tokens a second, and the ratio of the two.
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
    """Load the libraries of `folder` as the worker does; return tokens/s for each kind of work."""
    from llmd.worker.threads import num_usable_cores
    from llmd.worker.variants import load_best

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


def main(model: str, shipped: str, native: str, rounds: str = "10") -> None:
    """Measure in turns, and print the comparison."""
    found: dict[str, list[dict[str, Any]]] = {shipped: [], native: []}
    for number in range(int(rounds)):
        for folder, results in found.items():
            command = [sys.executable, __file__, "--one", model, folder]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            results.append(json.loads(done.stdout))
        print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr)
    print(file=sys.stderr)
    print(f"shipped: {found[shipped][0]['code']}; native: {found[native][0]['code']}")
    print(f"{'tokens/s':12} {'shipped':>9} {'native':>9} {'ratio':>6}")
    for name in [name for name in found[shipped][0] if name != "code"]:
        medians = [statistics.median(one[name] for one in results) for results in found.values()]
        print(f"{name:12} {medians[0]:9.1f} {medians[1]:9.1f} {medians[0] / medians[1]:6.2f}")


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        print(json.dumps(measure(sys.argv[2], Path(sys.argv[3]))))
    else:
        main(*sys.argv[1:])
