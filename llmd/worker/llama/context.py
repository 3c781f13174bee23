"""A llama.cpp context that generates, as a `Backend` for the scheduler."""

from __future__ import annotations

import ctypes
import mmap
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmd.engine.protocol import ChatPrompt, ModelInfo, Part, Start, Submit
from llmd.errors import EngineFailed, InvalidField
from llmd.worker.backend import Matcher, StateBytes
from llmd.worker.cpu.team import Team
from llmd.worker.grammar.matcher import GrammarCompiler
from llmd.worker.llama.batch import Batch
from llmd.worker.llama.embedding_context import EmbeddingContext
from llmd.worker.llama.model import LoadedModel
from llmd.worker.llama.sampler import LlamaSampler, SamplerTools
from llmd.worker.llama.timing import measure_steps
from llmd.worker.scheduling.step_cost import MEASURED_ROWS

MAX_DRAFT_ROWS = 32
"""More guessed tokens in a step cost more than they save, because the cores are busy already."""

_FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}
"""Values of `enum llama_flash_attn_type` in llama.h."""

_NUM_WARM_UP = 32
"""Tokens in the warm-up, enough for each kernel that works on tiles. Those of AMX have 32 rows."""


class LlamaBackend:
    """The context in which a model generates. It is freed only when the process exits."""

    def __init__(self, loaded: LoadedModel, start: Start) -> None:
        """Make the context and warm it up. Raise `EngineFailed` if there is not enough memory."""
        self._loaded = loaded
        self._start = start
        self._lib, self._short = loaded.lib, loaded.short
        self._vocabulary = loaded.vocabulary
        self._template = loaded.template
        self.syntax = loaded.syntax
        self.num_vocabulary = loaded.vocabulary.num_tokens
        self._grammars = GrammarCompiler(loaded.vocabulary)
        self.build = loaded.build
        self._ctx = self._make_context(start)
        self.tools = SamplerTools(self._lib, self._short, self._ctx, self._vocabulary)
        self._memory = self._lib.llama_get_memory(self._ctx)
        self.max_sequences = start.max_sequences
        self.max_batch_tokens = start.max_batch_tokens
        self.max_output_rows = _num_outputs(start)
        num_seq_tokens = int(self._lib.llama_n_ctx_seq(self._ctx))
        self.num_cells = num_seq_tokens if start.kv_unified else 0
        self.num_context_tokens = min(num_seq_tokens, loaded.num_trained_tokens)
        self._batch = Batch(start.max_batch_tokens)
        self._native_batch = self._lib.llama_batch(**self._batch.pointers())
        self._team = Team(max(loaded.num_threads, loaded.num_threads_batch), self._set_threads)
        self._warm_up()
        self.window = max(0, int(self._lib.llama_model_n_swa(loaded.model)))
        self.can_truncate = self._probe_truncation()
        # In a memory that all slots share, cells behind the window go to other slots at once: what
        # was added for a step could not be taken back.
        is_fixed = not self.can_truncate or (start.kv_unified and self.window > 0)
        self.max_draft_tokens = 0 if is_fixed else start.max_draft_tokens
        # Padding must not need cells of other slots either.
        self.can_pad = self.can_truncate and not start.kv_unified
        self.attention_share = _attention_share(self._lib, loaded.model)
        self.measured_steps_s = measure_steps(self, MEASURED_ROWS)

    def _make_context(self, start: Start) -> Any:
        lib = self._lib
        params = lib.llama_context_default_params()
        num_trained = self._loaded.num_trained_tokens
        # Beyond the length it was trained on, a model writes noise. Allocate no KV for that.
        params.n_ctx = min(start.num_context_tokens, num_trained * start.max_sequences)
        params.n_batch = params.n_ubatch = start.max_batch_tokens
        params.n_seq_max = start.max_sequences
        params.n_outputs_max = _num_outputs(start)
        params.n_threads = self._loaded.num_threads
        params.n_threads_batch = self._loaded.num_threads_batch
        params.type_k = params.type_v = {"f16": lib.GGML_TYPE_F16, "q8_0": lib.GGML_TYPE_Q8_0}[
            start.kv_type
        ]
        # With one KV stream for all, the attention of each token scans the cells of all sequences.
        params.kv_unified = start.kv_unified
        params.flash_attn_type = _FLASH_ATTENTION[start.flash_attention]
        params.no_perf = True
        context = lib.llama_init_from_model(self._loaded.model, params)
        if not context:
            raise EngineFailed(
                f"no memory for a context of {params.n_ctx} tokens: lower [engine] context"
            )
        return context

    def _set_threads(self, most: int) -> None:
        loaded = self._loaded
        self._lib.llama_set_n_threads(
            self._ctx, min(most, loaded.num_threads), min(most, loaded.num_threads_batch)
        )

    @property
    def info(self) -> ModelInfo:
        """The description of the model for the daemon."""
        return ModelInfo(
            architecture=self._loaded.architecture,
            num_parameters=int(self._lib.llama_model_n_params(self._loaded.model)),
            num_context_tokens=self.num_context_tokens,
            max_sequences=self.max_sequences,
            num_threads=self._loaded.num_threads,
            num_threads_batch=self._loaded.num_threads_batch,
            cpu_variant=self._loaded.cpu_variant,
            has_chat_template=self._template is not None,
            num_vocabulary=self.num_vocabulary,
            num_embedding=int(self._lib.llama_model_n_embd(self._loaded.model)),
            num_trained_tokens=self._loaded.num_trained_tokens,
            size_bytes=int(self._lib.llama_model_size(self._loaded.model)),
        )

    # Text

    def tokenize(
        self, parts: list[Part], *, begin: bool = True, owner: str | None = None
    ) -> list[int]:
        """Return the tokens of a text. Only literal parts can contain special tokens."""
        return self._vocabulary.tokenize(parts, begin=begin, owner=owner)

    def forget(self, owner: str) -> None:
        """Drop the cached tokens of an owner's texts."""
        self._vocabulary.forget(owner)

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return the bytes of a token. Those of a special token are empty unless `special`."""
        return self._vocabulary.spelling(token) if special else self._vocabulary.piece(token)

    def render(self, prompt: ChatPrompt) -> list[Part]:
        """Return the prompt that the model's own chat template makes."""
        if self._template is None:
            raise InvalidField(
                "the model has no usable chat template: use a profile with a template of its own"
            )
        return self._template.render(prompt, self._vocabulary.special)

    # Steps

    def compile(self, request: Submit, *, is_thinking: bool) -> Matcher | None:
        """Return a matcher for the request, or None. Unlike the other methods, thread-safe."""
        return self._grammars.compile_request(request, self.syntax, is_thinking=is_thinking)

    def sampler(self, request: Submit, recent: list[int], matcher: Matcher | None) -> LlamaSampler:
        """Return a new sampler whose penalties apply to the `recent` tokens at first."""
        return LlamaSampler(
            self.tools,
            request.sampling,
            recent,
            matcher=matcher,
            num_logprobs=request.num_logprobs,
        )

    def is_end(self, token: int) -> bool:
        """Return whether the model ends its answer with this token."""
        return self._vocabulary.is_end(token)

    def add(self, token: int, position: int, slot: int, *, output: bool) -> None:
        """Add a token to the next batch. With `output`, it gets logits."""
        self._batch.add(token, position, slot, output=output)

    def decode(self) -> float:
        """Run the batch and empty it; return how many seconds that took.

        Raise `EngineFailed` if llama.cpp fails.
        """
        self._native_batch.n_tokens = self._batch.num_tokens
        self._batch.num_tokens = 0
        # Use CDLL, not PyDLL: this call is long and must release the GIL for the reader thread.
        began = time.monotonic()
        code = self._lib.llama_decode(self._ctx, self._native_batch)
        took_s = time.monotonic() - began
        self._team.update(took_s)
        if code != 0:
            raise EngineFailed(f"llama_decode failed with code {code}")
        return took_s

    def truncate(self, slot: int, num_tokens: int) -> int:
        """Keep at most the first `num_tokens` of a slot; return how many were kept."""
        if self._short.memory_seq_rm(self._memory, slot, num_tokens, -1):
            return num_tokens
        # Recurrent layers hold no earlier state than the last one.
        self._short.memory_seq_rm(self._memory, slot, -1, -1)
        return 0

    def first_cell(self, slot: int) -> int:
        """Return the first position from which on all cells are there, in windowed layers too."""
        return max(0, int(self._lib.llama_memory_seq_pos_min(self._memory, slot)))

    def save(self, slot: int) -> StateBytes:
        """Return the keys and values of a slot."""
        return self._save(slot, self._lib.LLAMA_STATE_SEQ_FLAGS_NONE)

    def save_checkpoint(self, slot: int) -> StateBytes:
        """Return the part of a slot that cannot be cut back: recurrent and windowed layers."""
        return self._save(slot, self._lib.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)

    def load(self, slot: int, state: StateBytes) -> bool:
        """Load what `save` returned into a slot; return whether it fits."""
        return self._load(slot, state, self._lib.LLAMA_STATE_SEQ_FLAGS_NONE)

    def load_checkpoint(self, slot: int, state: StateBytes) -> bool:
        """Load what `save_checkpoint` returned over a slot; return whether it fits."""
        return self._load(slot, state, self._lib.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)

    def _save(self, slot: int, flags: int) -> StateBytes:
        size = int(self._lib.llama_state_seq_get_size_ext(self._ctx, slot, flags))
        # Do not use malloc: it asks for large pages, for which the kernel may have to compact
        # memory first. For 12 MB that took 24 ms, small pages took 4 ms, and the copy 0.5 ms.
        # Populate all pages at once: for 9 MB that takes 3 ms, page by page 4 ms.
        at_once = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
        memory = mmap.mmap(-1, max(size, 1), flags=at_once)
        buffer = (ctypes.c_uint8 * size).from_buffer(memory)
        written = int(self._lib.llama_state_seq_get_data_ext(self._ctx, buffer, size, slot, flags))
        return memoryview(memory)[:written]

    def _load(self, slot: int, state: StateBytes, flags: int) -> bool:
        pointer = _pointer(np.frombuffer(state, np.uint8))
        load = self._lib.llama_state_seq_set_data_ext
        return bool(load(self._ctx, pointer, len(state), slot, flags))

    def make_embedder(self) -> EmbeddingContext:
        """Return a context that computes vectors with the same model."""
        return EmbeddingContext(self._loaded, self._start)

    def _probe_truncation(self) -> bool:
        """Return whether a slot can be cut back, by trying it: slot 0 must be empty."""
        num_tokens = min(2, self.max_batch_tokens)
        for position in range(num_tokens):
            self.add(max(self._vocabulary.bos, 0), position, 0, output=True)
        self.decode()
        can_truncate = num_tokens > 1 and self.truncate(0, 1) == 1
        self.truncate(0, 0)
        return can_truncate

    def _warm_up(self) -> None:
        """Read a prompt and generate, so that the first answer does not wait for page faults.

        This runs the kernels for many rows and those for one row. CPU code that this processor
        cannot run then crashes here and not during an answer.
        """
        num_tokens = min(_NUM_WARM_UP, self.max_batch_tokens)
        for position in range(num_tokens):
            is_last = position == num_tokens - 1
            self.add(max(self._vocabulary.bos, 0), position, 0, output=is_last)
        self.decode()
        self.add(max(self._vocabulary.bos, 0), num_tokens, 0, output=True)
        self.decode()
        self.truncate(0, 0)


def _attention_share(lib: Any, model: Any) -> float:
    """Return the arithmetic of attention to one token, as a share of that of all weights.

    Per layer, attention takes two products of the model's width for each token before, and the
    weights one product each.
    """
    num_products = 2 * int(lib.llama_model_n_layer(model)) * int(lib.llama_model_n_embd(model))
    return num_products / max(1, int(lib.llama_model_n_params(model)))


def _pointer(data: NDArray[np.uint8]) -> Any:
    return data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


def _num_outputs(start: Start) -> int:
    """Return the largest number of rows of logits in a step."""
    return min(start.max_sequences + MAX_DRAFT_ROWS, start.max_batch_tokens)


def load_backend(start: Start, on_progress: Callable[[float, str], None]) -> LlamaBackend:
    """Load a model and make its context. Progress and exceptions are those of `LoadedModel`."""
    return LlamaBackend(LoadedModel(start, on_progress), start)
