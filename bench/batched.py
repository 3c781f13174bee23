"""llama.cpp's own benchmark of batches: no server and no sampling, only the model's steps."""

from __future__ import annotations

import json
import subprocess

from bench.alone import Alone
from bench.servers import Setup


class BatchedBench(Alone):
    """llama-batched-bench, which shows how fast the libraries are with nothing around them."""

    def __init__(self, setup: Setup) -> None:
        super().__init__("llama-batched-bench", setup)

    def measure(self, sizes: tuple[int, ...], num_prompt: int, num_answer: int) -> dict[int, float]:
        """Return the tokens per second for each number of sequences, which share no KV memory."""
        num_threads = str(self.setup.num_threads)
        command = [
            str(self.setup.peer / "llama-batched-bench"),
            *("--model", str(self.setup.model), "--offline", "--output-format", "jsonl"),
            *("--threads", num_threads, "--threads-batch", num_threads),
            *("--ctx-size", str(self.need.context(self.need.slots))),
            *("-npp", str(num_prompt), "-ntg", str(num_answer)),
            *("-npl", ",".join(map(str, sizes))),
        ]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, env=self.environment()
        )
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        if len(lines) < len(sizes):
            raise OSError(f"{self.name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        return {line["pl"]: line["speed_tg"] for line in lines}
