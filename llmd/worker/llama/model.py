"""Load llama.cpp and a model. This is the only file that imports llama_cpp.

The bindings are those of llama-cpp-python. The libraries are our own build of the llama.cpp tree
in its source distribution, with a variant of the CPU code for each kind of x86-64.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from llmd.engine.protocol import Start
from llmd.errors import EngineFailed, InvalidField, ModelInvalid
from llmd.worker.cpu.threads import num_threads_of
from llmd.worker.cpu.variants import load_best
from llmd.worker.llama.native import ShortCalls
from llmd.worker.llama.vocabulary import Vocabulary
from llmd.worker.prompt.chat_template import ChatTemplate
from llmd.worker.syntax_detection.detect import detect_syntax

_LOG_WARN = 3
_LOG_ERROR = 4


class LoadedModel:
    """The weights and the vocabulary of a model. They are freed only when the process exits."""

    def __init__(self, start: Start, on_progress: Callable[[float, str], None]) -> None:
        """Load a model. Raise `EngineFailed` or `ModelInvalid` if that fails.

        `on_progress` is called with the fraction that is loaded, 0 to 1, and the name of the
        variant of the CPU code.
        """
        self.lib, self.cpu_variant = _load_library(Path(start.library_dir), start.avoid_variants)
        # If this variant crashes from here on, the daemon tells the next worker to avoid it.
        on_progress(0.0, self.cpu_variant)
        self.model = _load_model(
            self.lib, start.model_path, lambda done: on_progress(done, self.cpu_variant)
        )
        self.short = ShortCalls(self.lib)
        self._num_library_bytes = Path(start.library_dir, "libllama.so").stat().st_size
        self.vocabulary = Vocabulary(self.lib, self.short, self.model)
        self.num_threads, self.num_threads_batch = num_threads_of(start)
        self.num_trained_tokens = int(self.lib.llama_model_n_ctx_train(self.model))
        source = self._template_source()
        self.template = self._read_template(source)
        self.syntax = detect_syntax(
            source,
            None if self.template is None else self.template.probe,
            ends=[
                self.vocabulary.spelling(token).decode("utf-8", "replace")
                for token in self.vocabulary.end_tokens
            ],
        )
        if self.template is not None and not self.syntax.is_native:
            # The calls could not be parsed, so describe the tools as text instead.
            self.template.describe_tools_as_text()

    @property
    def build(self) -> str:
        """A text that identifies the build of llama.cpp."""
        return f"{version('llama-cpp-python')} {self._num_library_bytes}"

    @property
    def architecture(self) -> str:
        """Name of the model's architecture, such as ``llama``."""
        buffer = ctypes.create_string_buffer(128)
        self.lib.llama_model_meta_val_str(self.model, b"general.architecture", buffer, 128)
        return buffer.value.decode("utf-8", "replace")

    def _template_source(self) -> str | None:
        source = self.lib.llama_model_chat_template(self.model, None)
        return None if source is None else str(source.decode("utf-8", "replace"))

    def _read_template(self, source: str | None) -> ChatTemplate | None:
        if source is None:
            return None
        vocabulary = self.vocabulary
        try:
            return ChatTemplate(source, bos=vocabulary.bos_text, eos=vocabulary.eos_text)
        except InvalidField as error:
            # Profiles with a template of their own still work.
            sys.stderr.write(f"{error.message}\n")
            return None


def _load_library(folder: Path, avoid: list[str]) -> tuple[Any, str]:
    """Load llama.cpp from a folder; return (bindings, name of the variant of the CPU code).

    By default llama.cpp would also search the current directory.
    """
    if not (folder / "libllama.so").exists():
        raise EngineFailed(
            f"no llama.cpp libraries in {folder}: install llmd again (in a checkout, run "
            "'make engine'), or set [engine] library_dir"
        )
    os.environ["LLAMA_CPP_LIB_PATH"] = str(folder)
    import llama_cpp.llama_cpp as lib

    lib.llama_log_set(_log, None)
    variant = load_best(ctypes.CDLL(str(folder / "libggml.so")), folder, avoid)
    lib.llama_backend_init()
    return lib, variant


def _load_model(lib: Any, path: str, on_progress: Callable[[float], None]) -> Any:
    """Map a model into memory. Raise `ModelInvalid` if llama.cpp cannot load it."""

    def progress(done: float, _data: object) -> bool:
        on_progress(done)
        return True

    _errors.clear()
    params = lib.llama_model_default_params()
    params.progress_callback = lib.llama_progress_callback(progress)
    model = lib.llama_model_load_from_file(path.encode(), params)
    if not model:
        # The last error only says that loading failed. An earlier one gives the reason.
        reasons = [line for line in _errors if "error loading model" in line] or _errors
        reason = reasons[-1] if reasons else "no reason given"
        raise ModelInvalid(f"llama.cpp cannot load {Path(path).name}: {reason}")
    return model


_errors: list[str] = []
"""The latest errors that llama.cpp logged."""


def _write_log(level: int, text: bytes, _data: object) -> None:
    """Keep llama.cpp's errors, and write them and its warnings to standard error."""
    line = text.decode("utf-8", "replace").rstrip()
    if level == _LOG_ERROR and line:
        del _errors[:-8]
        _errors.append(line)
    if level in (_LOG_WARN, _LOG_ERROR) and line:
        sys.stderr.write(line + "\n")


_log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(_write_log)
