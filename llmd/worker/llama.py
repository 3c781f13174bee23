"""llama.cpp as a `Backend`: the only file that imports llama_cpp.

The bindings are llama-cpp-python's, the libraries our own build of the llama.cpp tree inside
its source distribution, with a variant of the CPU code for each kind of x86-64.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmd.engine.protocol import Message, ModelInfo, Part, Sampling, Start
from llmd.errors import EngineFailed, InvalidField, ModelInvalid
from llmd.worker.batch import Batch
from llmd.worker.chat_template import ChatTemplate
from llmd.worker.native import ShortCalls
from llmd.worker.sampler import LlamaSampler
from llmd.worker.threads import num_usable_cores
from llmd.worker.variants import check_processor, load_best
from llmd.worker.vocabulary import Vocabulary

_NUM_WARM_UP = 32
"""Tokens: enough rows for every kernel that works on tiles, AMX's of 32 among them."""

_LOG_WARN = 3
_LOG_ERROR = 4


class LlamaBackend:
    """One model in this process, with one context. Free only by the end of the process."""

    def __init__(self, start: Start, on_progress: Callable[[float, str], None]) -> None:
        """Load the model. Raise `EngineFailed` or `ModelInvalid` with what is wrong.

        `on_progress` is told which part is loaded, 0 to 1, and the variant of the CPU code.
        """
        self._lib, self.cpu_variant = _load_library(Path(start.library_dir), start.avoid_variants)
        lib = self._lib
        # Should it die from here on, the next worker is told what to avoid.
        on_progress(0.0, self.cpu_variant)
        self._model = _load_model(
            lib, start.model_path, lambda done: on_progress(done, self.cpu_variant)
        )
        self._short = ShortCalls(lib)
        self._vocabulary = Vocabulary(lib, self._short, self._model)
        num_cores = num_usable_cores()
        self._num_threads = start.num_threads or num_cores
        self._num_threads_batch = start.num_threads_batch or num_cores
        self._ctx = self._make_context(start)
        self._memory = lib.llama_get_memory(self._ctx)
        self.max_sequences = start.max_sequences
        self.max_batch_tokens = start.max_batch_tokens
        self.num_context_tokens = int(lib.llama_n_ctx_seq(self._ctx))
        self._batch = Batch(start.max_batch_tokens)
        self._native_batch = lib.llama_batch(**self._batch.pointers())
        self._template = self._read_template()
        self._warm_up()

    def _make_context(self, start: Start) -> Any:
        lib = self._lib
        params = lib.llama_context_default_params()
        num_trained = int(lib.llama_model_n_ctx_train(self._model))
        # Beyond the length it was trained on, a model writes noise: no KV memory for that.
        params.n_ctx = min(start.num_context_tokens, num_trained * start.max_sequences)
        params.n_batch = params.n_ubatch = start.max_batch_tokens
        params.n_seq_max = start.max_sequences
        params.n_outputs_max = start.max_sequences
        params.n_threads = self._num_threads
        params.n_threads_batch = self._num_threads_batch
        params.type_k = params.type_v = {"f16": lib.GGML_TYPE_F16, "q8_0": lib.GGML_TYPE_Q8_0}[
            start.kv_type
        ]
        # With one KV stream for all, every token's attention walks the cells of all sequences.
        params.kv_unified = False
        params.no_perf = True
        context = lib.llama_init_from_model(self._model, params)
        if not context:
            raise EngineFailed(
                f"no memory for a context of {params.n_ctx} tokens: make [engine] context smaller"
            )
        return context

    @property
    def info(self) -> ModelInfo:
        """What the daemon wants to know of the model."""
        buffer = ctypes.create_string_buffer(128)
        self._lib.llama_model_meta_val_str(self._model, b"general.architecture", buffer, 128)
        return ModelInfo(
            architecture=buffer.value.decode("utf-8", "replace"),
            num_parameters=int(self._lib.llama_model_n_params(self._model)),
            num_context_tokens=self.num_context_tokens,
            max_sequences=self.max_sequences,
            num_threads=self._num_threads,
            num_threads_batch=self._num_threads_batch,
            cpu_variant=self.cpu_variant,
            has_chat_template=self._template is not None,
        )

    # Text

    def tokenize(self, parts: list[Part]) -> list[int]:
        """Return the tokens of the joined text; only literal parts can give special tokens."""
        return self._vocabulary.tokenize(parts)

    def piece(self, token: int) -> bytes:
        """Return the bytes that a token stands for; none for a special token."""
        return self._vocabulary.piece(token)

    def is_end(self, token: int) -> bool:
        """Tell whether the model ends its answer with this token."""
        return self._vocabulary.is_end(token)

    def render(self, messages: list[Message]) -> list[Part]:
        """Return the text of the model's own chat template, ready for the answer."""
        if self._template is None:
            raise InvalidField(
                "the model has no chat template that can be used: "
                "use a profile with a template of its own"
            )
        return self._template.render(messages, self._vocabulary.special)

    # Steps

    def sampler(self, sampling: Sampling, recent: list[int]) -> LlamaSampler:
        """Return a new sampler whose repeat window begins with the `recent` tokens."""
        num_vocab = self._vocabulary.num_tokens
        return LlamaSampler(self._lib, self._short, self._ctx, num_vocab, sampling, recent)

    def add(self, token: int, position: int, slot: int, *, output: bool) -> None:
        """Put a token into the next batch. With `output` its logits are wanted."""
        self._batch.add(token, position, slot, output=output)

    def decode(self) -> None:
        """Run the batch and empty it. Raise `EngineFailed` when llama.cpp cannot go on."""
        self._native_batch.n_tokens = self._batch.num_tokens
        self._batch.num_tokens = 0
        # CDLL, not PyDLL: it runs for long and must leave the GIL to the reader thread.
        code = self._lib.llama_decode(self._ctx, self._native_batch)
        if code != 0:
            raise EngineFailed(f"llama_decode failed with code {code}")

    def truncate(self, slot: int, num_tokens: int) -> int:
        """Keep at most the first `num_tokens` of a slot's KV; return how many it kept."""
        if self._short.memory_seq_rm(self._memory, slot, num_tokens, -1):
            return num_tokens
        # A recurrent model has no earlier state to go back to.
        self._short.memory_seq_rm(self._memory, slot, -1, -1)
        return 0

    def save(self, slot: int) -> bytes:
        """Return the slot's KV as bytes."""
        size = int(self._lib.llama_state_seq_get_size(self._ctx, slot))
        buffer = (ctypes.c_uint8 * size)()
        written = int(self._lib.llama_state_seq_get_data(self._ctx, buffer, size, slot))
        return bytes(memoryview(buffer)[:written])

    def load(self, slot: int, state: bytes) -> bool:
        """Put KV bytes from `save` into a slot; False when they do not fit."""
        buffer = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        return bool(self._lib.llama_state_seq_set_data(self._ctx, buffer, len(state), slot))

    def _warm_up(self) -> None:
        """Read a prompt and generate, so that the first answer does not wait for page faults.

        Both ways to multiply are tried, many rows and one: CPU code that this processor cannot run
        dies here, and not under somebody's answer.
        """
        num_tokens = min(_NUM_WARM_UP, self.max_batch_tokens)
        for position in range(num_tokens):
            is_last = position == num_tokens - 1
            self.add(max(self._vocabulary.bos, 0), position, 0, output=is_last)
        self.decode()
        self.add(max(self._vocabulary.bos, 0), num_tokens, 0, output=True)
        self.decode()
        self.truncate(0, 0)

    def _read_template(self) -> ChatTemplate | None:
        source = self._lib.llama_model_chat_template(self._model, None)
        if source is None:
            return None
        vocabulary = self._vocabulary
        try:
            return ChatTemplate(
                source.decode("utf-8", "replace"), bos=vocabulary.bos_text, eos=vocabulary.eos_text
            )
        except InvalidField as error:
            # Profiles with a template of their own do without it.
            sys.stderr.write(f"{error.message}\n")
            return None


def _load_library(folder: Path, avoid: list[str]) -> tuple[Any, str]:
    """Load the bindings and the CPU code that suits this machine best: (bindings, its name).

    From this folder only: left to itself, llama.cpp would also search the current directory.
    """
    if not (folder / "libllama.so").exists():
        raise EngineFailed(
            f"no llama.cpp libraries in {folder}: install llmd again ('make engine' "
            "in a checkout), or set [engine] library_dir"
        )
    check_processor()
    os.environ["LLAMA_CPP_LIB_PATH"] = str(folder)
    import llama_cpp.llama_cpp as lib

    lib.llama_log_set(_log, None)
    variant = load_best(ctypes.CDLL(str(folder / "libggml.so")), folder, avoid)
    lib.llama_backend_init()
    return lib, variant


def _load_model(lib: Any, path: str, on_progress: Callable[[float], None]) -> Any:
    """Map a model into memory. Raise `ModelInvalid` when llama.cpp refuses it."""

    def progress(done: float, _data: object) -> bool:
        on_progress(done)
        return True

    _errors.clear()
    params = lib.llama_model_default_params()
    params.progress_callback = lib.llama_progress_callback(progress)
    model = lib.llama_model_load_from_file(path.encode(), params)
    if not model:
        # llama.cpp's last line only says that it failed; the one before it says why.
        reasons = [line for line in _errors if "error loading model" in line] or _errors
        reason = reasons[-1] if reasons else "no reason given"
        raise ModelInvalid(f"llama.cpp cannot load {Path(path).name}: {reason}")
    return model


_errors: list[str] = []


def _write_log(level: int, text: bytes, _data: object) -> None:
    """Keep llama.cpp's errors, and show them and its warnings on standard error."""
    line = text.decode("utf-8", "replace").rstrip()
    if level == _LOG_ERROR and line:
        del _errors[:-8]
        _errors.append(line)
    if level in (_LOG_WARN, _LOG_ERROR) and line:
        sys.stderr.write(line + "\n")


_log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(_write_log)
