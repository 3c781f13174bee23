"""A llama.cpp context that computes vectors, as an `EmbeddingBackend`.

It may be the only context of a model, or exist beside the one that generates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from llmd.engine.protocol import ModelInfo, Start
from llmd.errors import EngineFailed, InvalidField, ModelInvalid
from llmd.worker.backend import EmbeddingChunk, Vector
from llmd.worker.llama.batch import Batch
from llmd.worker.llama.model import LoadedModel

MAX_INPUT_TOKENS = 8192
"""The limit of OpenAI's models. Memory for the longest input is allocated in advance."""

MAX_BATCH_TOKENS = 512
"""Larger batches are no faster, and slower if each token attends to the whole batch."""

MAX_SEQUENCES = 32
"""Limit of the inputs in one batch."""

# llama.cpp allocates logits for each token of which it computes a vector. With a vocabulary of
# 250,000 tokens that is 1 MB for each token.
_MAX_SPLIT_LOGITS_BYTES = 64 * 1024 * 1024
"""Memory limit for these logits in a batch of several inputs or chunks."""

_MAX_WHOLE_LOGITS_BYTES = 2 * 1024 * 1024 * 1024
"""Memory limit for these logits in a batch of one input that cannot be split."""

_MIN_BATCH_TOKENS = 32
"""Smallest batch, however large the vocabulary is."""


class EmbeddingContext:
    """The context in which a model computes vectors. It is freed only when the process exits."""

    def __init__(self, loaded: LoadedModel, start: Start) -> None:
        """Make the context.

        Raise `InvalidField` if the model cannot compute vectors, and `EngineFailed` if there is
        not enough memory.
        """
        self._loaded = loaded
        self._lib = lib = loaded.lib
        self._has_encoder = bool(lib.llama_model_has_encoder(loaded.model))
        if self._has_encoder and lib.llama_model_has_decoder(loaded.model):
            raise InvalidField(
                f"the model makes no embeddings: {loaded.architecture} is an encoder-decoder "
                "architecture"
            )
        self._pooling, is_causal = pooling, _ = self._probe()
        self.can_split = is_causal and pooling != lib.LLAMA_POOLING_TYPE_CLS
        # llama.cpp computes the mean of one batch only, so the mean over chunks is computed here.
        self.sums_tokens = pooling == lib.LLAMA_POOLING_TYPE_NONE or (
            self.can_split and pooling == lib.LLAMA_POOLING_TYPE_MEAN
        )
        self.num_vocabulary = loaded.vocabulary.num_tokens
        self.num_dimensions = int(lib.llama_model_n_embd_out(loaded.model))
        self.max_input_tokens = min(
            MAX_INPUT_TOKENS,
            loaded.num_trained_tokens,
            start.num_context_tokens,
        )
        self.max_batch_tokens = min(
            MAX_BATCH_TOKENS,
            start.max_batch_tokens,
            self._num_with_logits(_MAX_SPLIT_LOGITS_BYTES),
        )
        if self.can_split:
            # llama.cpp warns of a context beyond the trained length. It contains the longest input
            # and a whole batch beside it.
            num_left = loaded.num_trained_tokens - self.max_batch_tokens
            if num_left > 0:
                self.max_input_tokens = min(self.max_input_tokens, num_left)
        else:
            num_at_once = self._num_with_logits(_MAX_WHOLE_LOGITS_BYTES)
            self.max_input_tokens = min(self.max_input_tokens, num_at_once)
        # A recurrent model needs memory for a whole state for each sequence.
        is_recurrent = lib.llama_model_is_recurrent(loaded.model) or lib.llama_model_is_hybrid(
            loaded.model
        )
        # llama.cpp aborts on a context of more sequences than tokens in a batch.
        self.max_sequences = 2 if is_recurrent else min(MAX_SEQUENCES, self.max_batch_tokens)
        self._ctx = self._make_context(start)
        self._memory = lib.llama_get_memory(self._ctx)
        self._batch = Batch(self._num_batch_tokens)
        self._native_batch = lib.llama_batch(**self._batch.pointers())

    @property
    def _num_batch_tokens(self) -> int:
        """The largest number of tokens in one run."""
        return max(self.max_batch_tokens, 0 if self.can_split else self.max_input_tokens)

    def _num_with_logits(self, max_bytes: int) -> int:
        return max(_MIN_BATCH_TOKENS, max_bytes // (4 * self.num_vocabulary))

    def _probe(self) -> tuple[int, bool]:
        """Return (type of pooling, whether a token attends only to the tokens before it).

        This makes a small context, because both depend on the model file and llama.cpp's code.
        """
        lib = self._lib
        params = lib.llama_context_default_params()
        params.n_ctx = 256
        params.n_batch = params.n_ubatch = _MIN_BATCH_TOKENS
        params.embeddings = True
        params.no_perf = True
        context = lib.llama_init_from_model(self._loaded.model, params)
        if not context:
            raise EngineFailed("no memory for embeddings: lower [engine] context")
        pooling = int(lib.llama_pooling_type(context))
        is_causal = bool(lib.llama_get_causal_attn(context)) and not self._has_encoder
        lib.llama_free(context)
        if pooling == lib.LLAMA_POOLING_TYPE_RANK:
            raise InvalidField("the model is a reranker: it makes no embeddings")
        return pooling, is_causal

    def _make_context(self, start: Start) -> Any:
        lib = self._lib
        params = lib.llama_context_default_params()
        params.n_batch = params.n_ubatch = self._num_batch_tokens
        # Make room for a batch of whole inputs beside the longest input in chunks.
        params.n_ctx = self._num_batch_tokens + (self.max_input_tokens if self.can_split else 0)
        params.n_seq_max = self.max_sequences
        # Share the KV among all slots. Otherwise each slot would get only a part of it.
        params.kv_unified = True
        params.n_threads = params.n_threads_batch = self._loaded.num_threads_batch
        if self.can_split and start.kv_type == "q8_0":
            params.type_k = params.type_v = lib.GGML_TYPE_Q8_0
        if self.sums_tokens and self._pooling == lib.LLAMA_POOLING_TYPE_MEAN:
            params.pooling_type = lib.LLAMA_POOLING_TYPE_NONE
        params.embeddings = True
        params.no_perf = True
        context = lib.llama_init_from_model(self._loaded.model, params)
        if not context:
            raise EngineFailed(
                f"no memory for embeddings of {self.max_input_tokens} tokens: "
                "lower [engine] context"
            )
        return context

    @property
    def info(self) -> ModelInfo:
        """The description of the model for the daemon."""
        loaded, lib = self._loaded, self._lib
        return ModelInfo(
            architecture=loaded.architecture,
            num_parameters=int(lib.llama_model_n_params(loaded.model)),
            num_context_tokens=self.max_input_tokens,
            max_sequences=self.max_sequences,
            num_threads=loaded.num_threads,
            num_threads_batch=loaded.num_threads_batch,
            cpu_variant=loaded.cpu_variant,
            has_chat_template=loaded.template is not None,
            num_vocabulary=self.num_vocabulary,
            num_embedding=self.num_dimensions,
            num_trained_tokens=loaded.num_trained_tokens,
            size_bytes=int(lib.llama_model_size(loaded.model)),
        )

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of an input, with the special tokens that the model expects."""
        return self._loaded.vocabulary.tokenize_whole(text)

    def run(self, chunks: list[EmbeddingChunk]) -> list[Vector]:
        """Return a vector for each chunk: the sum over its tokens if `sums_tokens`, else pooled.

        Raise `EngineFailed` if llama.cpp fails.
        """
        for chunk in chunks:
            if chunk.begin == 0:
                self._forget(chunk.slot)
            for position, token in enumerate(chunk.tokens, chunk.begin):
                self._batch.add(token, position, chunk.slot, output=True)
        self._compute()
        vectors = self._sums(chunks) if self.sums_tokens else self._pooled(chunks)
        for chunk in chunks:
            if chunk.is_last:
                self._forget(chunk.slot)
        return vectors

    def warm_up(self) -> None:
        """Read an input, so that CPU code that this processor cannot run crashes here."""
        token = max(self._loaded.vocabulary.bos, 0)
        num_tokens = min(_MIN_BATCH_TOKENS, self.max_batch_tokens, self.max_input_tokens)
        self.run([EmbeddingChunk(0, 0, [token] * num_tokens, is_last=True)])
        self.run([EmbeddingChunk(0, 0, [token], is_last=True)])

    def _compute(self) -> None:
        """Run the batch and empty it."""
        self._native_batch.n_tokens = self._batch.num_tokens
        self._batch.num_tokens = 0
        call = self._lib.llama_encode if self._has_encoder else self._lib.llama_decode
        code = call(self._ctx, self._native_batch)
        if code != 0:
            raise EngineFailed(f"llama.cpp cannot make embeddings: code {code}")

    def _sums(self, chunks: list[EmbeddingChunk]) -> list[Vector]:
        num_rows = sum(len(chunk.tokens) for chunk in chunks)
        rows = self._read(
            self._lib.llama_get_embeddings(self._ctx), (num_rows, self.num_dimensions)
        )
        vectors: list[Vector] = []
        at = 0
        for chunk in chunks:
            vectors.append(rows[at : at + len(chunk.tokens)].sum(axis=0))
            at += len(chunk.tokens)
        return vectors

    def _pooled(self, chunks: list[EmbeddingChunk]) -> list[Vector]:
        return [
            self._read(
                self._lib.llama_get_embeddings_seq(self._ctx, chunk.slot), (self.num_dimensions,)
            ).copy()
            for chunk in chunks
        ]

    def _read(self, pointer: Any, shape: tuple[int, ...]) -> Vector:
        """Return a view of llama.cpp's floats, which the next run overwrites."""
        if not pointer:
            raise EngineFailed("llama.cpp made no embeddings")
        view: Vector = np.ctypeslib.as_array(pointer, shape)
        return view

    def _forget(self, slot: int) -> None:
        """Drop a slot's KV. Most models that only embed have none."""
        if self._memory:
            self._loaded.short.memory_seq_rm(self._memory, slot, -1, -1)


def load_embedder(start: Start, on_progress: Callable[[float, str], None]) -> EmbeddingContext:
    """Load a model that only embeds. Progress and exceptions are those of `LoadedModel`."""
    loaded = LoadedModel(start, on_progress)
    try:
        context = EmbeddingContext(loaded, start)
    except InvalidField as error:
        raise ModelInvalid(error.message) from None
    context.warm_up()
    return context
