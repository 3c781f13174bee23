"""llama.cpp's own measure of batches: no server, no sampling, nothing but the model's steps."""

from __future__ import annotations

import json
import subprocess

from bench.alone import Alone
from bench.servers import Place


class BatchedBench(Alone):
    """llama-batched-bench: what the libraries give when nothing is in their way."""

    def __init__(self, place: Place) -> None:
        super().__init__("llama-batched-bench", place)

    def measure(self, sizes: tuple[int, ...], num_prompt: int, num_answer: int) -> dict[int, float]:
        """Return tokens a second by number of sequences, each with KV memory of its own."""
        num_threads = str(self.place.num_threads)
        command = [
            str(self.place.peer / "llama-batched-bench"),
            *("--model", str(self.place.model), "--offline", "--output-format", "jsonl"),
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
