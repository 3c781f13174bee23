"""A KV memory that all sequences share, and that is full before their answers end."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.daemon import Starter

pytestmark = pytest.mark.e2e

NUM_ANSWER = 300


@pytest.mark.parametrize("flash_attention", ["on", "off"])
def test_answers_that_together_outgrow_the_memory_all_complete(
    start_daemon: Starter, model_file: Path, flash_attention: str
) -> None:
    """Three answers that need twice the memory complete, and one prompt may fill all of it."""
    daemon = start_daemon(
        model_file,
        engine={
            "context": 512,
            "parallel": 3,
            "kv_unified": True,
            "flash_attention": flash_attention,
        },
        cache={"disk_bytes": 0},
    )
    end = daemon.client.call("POST", "/tokenize", {"content": "<|im_end|>", "parse_special": True})
    ends = {str(token): -100 for token in [0, *end.body["tokens"]]}

    def ask(number: int) -> tuple[str, int, str]:
        answer = daemon.client.call(
            "POST",
            "/v1/chat/completions",
            {
                "model": "default",
                "messages": [{"role": "user", "content": f"Tell a story about {number} birds."}],
                "temperature": 0,
                "max_tokens": NUM_ANSWER,
                "logit_bias": ends,
            },
        ).body
        choice = answer["choices"][0]
        num_tokens = answer["usage"]["completion_tokens"]
        return choice["finish_reason"], num_tokens, choice["message"]["content"]

    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(ask, [3, 4, 5]))
    assert [(reason, number) for reason, number, _ in together] == [("length", NUM_ANSWER)] * 3
    assert all("bird" in text for _, _, text in together)
    words = "one two three four five six seven eight nine ten " * 40
    alone = daemon.client.ask(words, max_tokens=4)
    assert alone["usage"]["prompt_tokens"] > 400
