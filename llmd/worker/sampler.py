"""Choose tokens in C: a chain of llama.cpp's samplers for one sequence."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmd.engine.protocol import Candidate, Sampling, TokenLogprob
from llmd.worker.backend import Matcher
from llmd.worker.native import ShortCalls
from llmd.worker.vocabulary import Vocabulary

REPEAT_WINDOW = 64
"""Tokens that the penalties look back on: llama.cpp's own default."""

Logits = NDArray[np.float32]


class LlamaSampler:
    """A chain of llama.cpp's samplers, in llama.cpp's order."""

    def __init__(
        self,
        lib: Any,
        short: ShortCalls,
        context: Any,
        vocabulary: Vocabulary,
        sampling: Sampling,
        recent: list[int],
        *,
        matcher: Matcher | None = None,
        num_logprobs: int | None = None,
    ) -> None:
        self._short = short
        self._context = context
        self._vocabulary = vocabulary
        self._matcher = matcher
        self._num_logprobs = num_logprobs
        self.logprob: TokenLogprob | None = None
        self._chain = _chain(lib, vocabulary.num_tokens, sampling, recent)

    def sample(self, output: int) -> int:
        """Return the token chosen from row `output` of the last decode.

        Raise `InvalidField` when the grammar of the answer cannot be followed further.
        """
        if self._matcher is None and self._num_logprobs is None:
            return int(self._short.sampler_sample(self._chain, self._context, output))
        logits = self._logits(output)
        logprobs = None if self._num_logprobs is None else _log_softmax(logits)
        if self._matcher is not None:
            logits[~self._matcher.mask()] = -np.inf
        token = int(self._short.sampler_sample(self._chain, self._context, output))
        if self._matcher is not None:
            self._matcher.accept(token)
        if logprobs is not None:
            self.logprob = self._describe(token, logprobs)
        return token

    @property
    def is_complete(self) -> bool:
        """Whether the grammar of the answer allows nothing more."""
        return self._matcher is not None and self._matcher.is_complete

    def close(self) -> None:
        """Free the native memory. Idempotent."""
        if self._chain is not None:
            self._short.sampler_free(self._chain)
            self._chain = None

    def _logits(self, output: int) -> Logits:
        """Return a row of logits as llama.cpp keeps it: what is written there counts."""
        pointer = self._short.get_logits_ith(self._context, output)
        return np.ctypeslib.as_array(pointer, (self._vocabulary.num_tokens,))

    def _describe(self, token: int, logprobs: Logits) -> TokenLogprob:
        """Return the chosen token among the likeliest, as the model saw them before any bias."""
        num_top = min(self._num_logprobs or 0, len(logprobs))
        top: list[int] = []
        if num_top:
            likeliest = np.argpartition(logprobs, -num_top)[-num_top:]
            top = sorted(map(int, likeliest), key=lambda other: (-logprobs[other], other))
        return TokenLogprob(
            self._candidate(token, logprobs), [self._candidate(other, logprobs) for other in top]
        )

    def _candidate(self, token: int, logprobs: Logits) -> Candidate:
        # JSON knows no infinity.
        logprob = max(float(logprobs[token]), -9999.0)
        return Candidate(token, self._vocabulary.spelling(token), logprob)


def _log_softmax(logits: Logits) -> Logits:
    shifted = logits - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()), dtype=np.float32)


def _chain(lib: Any, num_vocab: int, sampling: Sampling, recent: list[int]) -> Any:
    """Return a new chain; its penalties have seen the `recent` tokens."""
    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    biases = [(token, bias) for token, bias in sampling.logit_bias.items() if token < num_vocab]
    if biases:
        array = (lib.llama_logit_bias * len(biases))(*biases)
        bias = lib.llama_sampler_init_logit_bias(num_vocab, len(biases), array)
        lib.llama_sampler_chain_add(chain, bias)
    penalty = (sampling.repeat_penalty, sampling.frequency_penalty, sampling.presence_penalty)
    if penalty != (1.0, 0.0, 0.0):
        penalties = lib.llama_sampler_init_penalties(num_vocab, REPEAT_WINDOW, *penalty)
        for token in recent[-REPEAT_WINDOW:]:
            lib.llama_sampler_accept(penalties, token)
        lib.llama_sampler_chain_add(chain, penalties)
    if sampling.temperature == 0:
        lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_greedy())
        return chain
    for sampler in (
        lib.llama_sampler_init_top_k(sampling.top_k),
        lib.llama_sampler_init_top_p(sampling.top_p, 1),
        lib.llama_sampler_init_min_p(sampling.min_p, 1),
        lib.llama_sampler_init_temp(sampling.temperature),
        lib.llama_sampler_init_dist(sampling.seed),
    ):
        lib.llama_sampler_chain_add(chain, sampler)
    return chain
