"""Choose the tokens of a sequence with a chain of llama.cpp's samplers."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmd.engine.protocol import Candidate, Sampling, TokenLogprob
from llmd.worker.backend import Matcher
from llmd.worker.llama.logits import CandidateArray, Logits, Row
from llmd.worker.llama.native import ShortCalls
from llmd.worker.llama.vocabulary import Vocabulary

REPEAT_WINDOW = 64
"""Number of latest tokens that penalties apply to, llama.cpp's default."""


class SamplerTools:
    """Objects that all samplers of one context share."""

    def __init__(self, lib: Any, short: ShortCalls, context: Any, vocabulary: Vocabulary) -> None:
        self.lib, self.short, self.context = lib, short, context
        self.vocabulary = vocabulary
        self.logits = Logits(short, context, vocabulary.num_tokens)
        self.candidates = CandidateArray(lib, short, vocabulary.num_tokens)


class LlamaSampler:
    """A chain of llama.cpp's samplers, in llama.cpp's order.

    Biases and grammars are applied to the row of logits directly, and greedy choices are made
    there. That takes a tenth of the time.
    """

    def __init__(
        self,
        tools: SamplerTools,
        sampling: Sampling,
        recent: list[int],
        *,
        matcher: Matcher | None = None,
        num_logprobs: int | None = None,
    ) -> None:
        self._tools = tools
        self._matcher = matcher
        self._num_logprobs = num_logprobs
        self.logprob: TokenLogprob | None = None
        biases = {
            token: bias
            for token, bias in sampling.logit_bias.items()
            if token < tools.vocabulary.num_tokens
        }
        self._biased = np.array(list(biases), np.int64)
        self._biases = np.array(list(biases.values()), np.float32)
        self._is_greedy = sampling.temperature == 0 and not _has_penalties(sampling)
        self._num_likeliest = 0 if _has_penalties(sampling) else sampling.top_k
        self._chain = None
        if not self._is_greedy:
            self._chain = make_chain(tools.lib, tools.vocabulary.num_tokens, sampling, recent)

    def sample(self, output: int) -> int:
        """Return the token chosen from row `output` of the last decode.

        Raise `InvalidField` if the grammar of the answer cannot be matched further.
        """
        logits = self._tools.logits.row(output)
        logprobs = None if self._num_logprobs is None else _log_softmax(logits)
        if len(self._biased):
            logits[self._biased] += self._biases
        if self._matcher is not None:
            logits[~self._matcher.mask()] = -np.inf
        token = self._choose(logits, output)
        if self._matcher is not None:
            self._matcher.accept(token)
        if logprobs is not None:
            self.logprob = self._describe(token, logprobs)
        return token

    def _choose(self, logits: Row, output: int) -> int:
        if self._is_greedy:
            return int(logits.argmax())
        if self._num_likeliest > 0:
            return self._tools.candidates.choose(self._chain, logits, self._num_likeliest)
        short, context = self._tools.short, self._tools.context
        return int(short.sampler_sample(self._chain, context, output))

    @property
    def is_complete(self) -> bool:
        """Whether the grammar of the answer allows no further token."""
        return self._matcher is not None and self._matcher.is_complete

    def close(self) -> None:
        """Free the native memory. Idempotent."""
        if self._chain is not None:
            self._tools.short.sampler_free(self._chain)
            self._chain = None

    def _describe(self, token: int, logprobs: Row) -> TokenLogprob:
        """Return the log probabilities of a token and the likeliest ones, before any bias."""
        num_top = min(self._num_logprobs or 0, len(logprobs))
        top: list[int] = []
        if num_top:
            likeliest = np.argpartition(logprobs, -num_top)[-num_top:]
            top = sorted(map(int, likeliest), key=lambda other: (-logprobs[other], other))
        return TokenLogprob(
            self._candidate(token, logprobs), [self._candidate(other, logprobs) for other in top]
        )

    def _candidate(self, token: int, logprobs: Row) -> Candidate:
        # JSON cannot express infinity.
        logprob = max(float(logprobs[token]), -9999.0)
        return Candidate(token, self._tools.vocabulary.spelling(token), logprob)


def _log_softmax(logits: Row) -> Row:
    shifted = logits - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()), dtype=np.float32)


def _penalties(sampling: Sampling) -> tuple[float, float, float]:
    return (sampling.repeat_penalty, sampling.frequency_penalty, sampling.presence_penalty)


def _has_penalties(sampling: Sampling) -> bool:
    return _penalties(sampling) != (1.0, 0.0, 0.0)


def make_chain(lib: Any, num_vocab: int, sampling: Sampling, recent: list[int]) -> Any:
    """Return a new chain whose penalties apply to the `recent` tokens."""
    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    if _has_penalties(sampling):
        penalties = lib.llama_sampler_init_penalties(
            num_vocab, REPEAT_WINDOW, *_penalties(sampling)
        )
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
