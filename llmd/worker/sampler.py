"""Choose tokens in C: a chain of llama.cpp's samplers for one sequence."""

from __future__ import annotations

from typing import Any

from llmd.engine.protocol import Sampling
from llmd.worker.native import ShortCalls

REPEAT_WINDOW = 64
"""Tokens that the repeat penalty looks back on: llama.cpp's own default."""


class LlamaSampler:
    """A chain of llama.cpp's samplers, in llama.cpp's order."""

    def __init__(
        self,
        lib: Any,
        short: ShortCalls,
        context: Any,
        num_vocab: int,
        sampling: Sampling,
        recent: list[int],
    ) -> None:
        self._short = short
        self._context = context
        self._chain = chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        if sampling.repeat_penalty != 1.0:
            penalties = lib.llama_sampler_init_penalties(
                num_vocab, REPEAT_WINDOW, sampling.repeat_penalty, 0.0, 0.0
            )
            for token in recent[-REPEAT_WINDOW:]:
                lib.llama_sampler_accept(penalties, token)
            lib.llama_sampler_chain_add(chain, penalties)
        if sampling.temperature == 0:
            lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_greedy())
            return
        for sampler in (
            lib.llama_sampler_init_top_k(sampling.top_k),
            lib.llama_sampler_init_top_p(sampling.top_p, 1),
            lib.llama_sampler_init_min_p(sampling.min_p, 1),
            lib.llama_sampler_init_temp(sampling.temperature),
            lib.llama_sampler_init_dist(sampling.seed),
        ):
            lib.llama_sampler_chain_add(chain, sampler)

    def sample(self, output: int) -> int:
        """Return the token chosen from row `output` of the last decode."""
        return int(self._short.sampler_sample(self._chain, self._context, output))

    def close(self) -> None:
        """Free the native memory. Idempotent."""
        if self._chain is not None:
            self._short.sampler_free(self._chain)
            self._chain = None
