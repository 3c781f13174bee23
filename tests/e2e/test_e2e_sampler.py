from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from llmd.engine.protocol import Part, Sampling, Start
from llmd.worker.llama.context import LlamaBackend
from llmd.worker.llama.model import LoadedModel
from llmd.worker.llama.sampler import LlamaSampler, SamplerTools, make_chain

pytestmark = pytest.mark.e2e

NUM_ROWS = 8


class Model:
    """The small model with some rows of logits, and both samplers for them."""

    def __init__(self, path: Path) -> None:
        start = Start(
            model_path=str(path),
            library_dir=str(Path(sys.prefix, "engine")),
            num_context_tokens=512,
            max_sequences=1,
            max_batch_tokens=64,
            num_threads=0,
            num_threads_batch=0,
            kv_type="f16",
            max_state_bytes=0,
        )
        loaded = LoadedModel(start, lambda _done, _variant: None)
        backend = LlamaBackend(loaded, start)
        self.tools: SamplerTools = backend.tools
        text = "The capital of France is Paris, and that of Italy"
        self.tokens = loaded.vocabulary.tokenize([Part(text=text)])[:NUM_ROWS]
        for position, token in enumerate(self.tokens):
            backend.add(token, position, 0, output=True)
        backend.decode()

    def ours(self, sampling: Sampling) -> list[int]:
        sampler = LlamaSampler(self.tools, sampling, self.tokens)
        try:
            return [sampler.sample(row) for row in range(NUM_ROWS)]
        finally:
            sampler.close()

    def llamas(self, sampling: Sampling) -> list[int]:
        tools = self.tools
        chain = make_chain(tools.lib, tools.vocabulary.num_tokens, sampling, self.tokens)
        try:
            return [
                int(tools.short.sampler_sample(chain, tools.context, row))
                for row in range(NUM_ROWS)
            ]
        finally:
            tools.short.sampler_free(chain)


@pytest.fixture(scope="module")
def model(model_file: Path) -> Model:
    """Return the model, loaded in this process."""
    return Model(model_file)


@pytest.mark.parametrize("seed", range(40))
def test_the_likeliest_alone_give_the_same_tokens_as_the_whole_vocabulary(
    model: Model, seed: int
) -> None:
    """Sampling among the most likely tokens gives llama.cpp's token, whatever its filters keep."""
    for sampling in (
        Sampling(temperature=1.0, seed=seed),
        Sampling(temperature=0.7, top_k=1, seed=seed),
        Sampling(temperature=2.0, top_k=700, top_p=0.99, min_p=0.01, seed=seed),
        Sampling(temperature=1.5, top_k=40000, top_p=1.0, min_p=0.0, seed=seed),
    ):
        assert model.ours(sampling) == model.llamas(sampling)


def test_the_likeliest_token_is_llama_cpps(model: Model) -> None:
    """At temperature 0 the token is the one that llama.cpp selects."""
    greedy = Sampling(temperature=0)
    assert model.ours(greedy) == model.llamas(greedy)


def test_penalties_are_those_of_llama_cpp(model: Model) -> None:
    """Penalties for earlier tokens give the tokens that llama.cpp selects."""
    punished = Sampling(temperature=0, repeat_penalty=1.8, presence_penalty=1.0)
    assert model.ours(punished) == model.llamas(punished)
    assert model.ours(punished) != model.ours(Sampling(temperature=0))


def test_bias_applies_at_once_and_ignores_unknown_tokens(model: Model) -> None:
    """A forbidden token is not selected; a token outside the vocabulary has no effect."""
    likeliest = model.ours(Sampling(temperature=0))
    row = model.tools.logits.row(0)
    before = np.array(row)
    banned = Sampling(temperature=0, logit_bias={likeliest[0]: -100.0, 10**6: 100.0})
    others = model.ours(banned)
    model.tools.logits.row(0)[:] = before
    assert others[0] != likeliest[0]
