"""Make tiny GGUF models of many architectures, with random weights.

`made_model("gemma3", folder)` writes a model of some hundred kilobytes that llama.cpp loads and
generates with. What it says has no sense, but other prompts get other answers, and greedy answers
are plain ASCII that ends only at a limit (`Vocabulary.rare`).

A model needs only an entry in `KINDS` with its hyper-parameters: `llama_model_init_from_user` of
llama.cpp names the tensors that an architecture needs, with their shapes. This happens in a child
process, because llama.cpp aborts where hyper-parameters do not fit together.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import os
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.support.made_kinds import (
    GENERATING,
    KINDS,
    MAX_TOKENS,
    WIDTH,
    WINDOW,
    Values,
    adapter_values,
    model_values,
    projector_values,
)
from tests.support.made_vocabulary import (
    CLASS,
    END,
    NUM_TOKENS,
    PAD,
    SEPARATOR,
    TEMPLATE,
    TURN_END,
    vocabulary,
)

__all__ = ["GENERATING", "KINDS", "MAX_TOKENS", "WINDOW", "MadeModels", "made_model"]

_ROOT = Path(__file__).parents[2]

MadeModels = Callable[[str], Path]
"""The fixture `made_models` of the end-to-end tests: from a kind of `KINDS` to its file."""


def made_model(
    kind: str, folder: Path, *, seed: int = 1, template: str = TEMPLATE, name: str = ""
) -> Path:
    """Make a model of a kind of `KINDS` in `folder` and return its file; equal calls, equal bytes.

    The file is called `name`, or by its kind. Raise RuntimeError if llama.cpp refuses to make it.
    """
    file = folder / (name or f"{kind}.gguf")
    if kind == "adapter":
        _write(file, adapter_values(), _adapter_tensors(seed))
    elif kind == "projector":
        _write(file, projector_values(), _projector_tensors(seed))
    else:
        arguments = [kind, str(file.absolute()), "--seed", str(seed), "--template", template]
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.made_model", *arguments],
            check=False,
            capture_output=True,
            cwd=_ROOT,
            text=True,
            timeout=120,
        )
        if done.returncode:
            message = f"{kind} cannot be made ({done.returncode}): {done.stderr[-2000:]}"
            raise RuntimeError(message)
    return file


def _tokenizer_values(template: str) -> Values:
    """Return the metadata of the tokenizer, with the chat template if there is one."""
    words = vocabulary()
    values: Values = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": words.tokens,
        "tokenizer.ggml.token_type": words.types,
        "tokenizer.ggml.merges": words.merges,
        "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.bos_token_id": words.number(END),
        "tokenizer.ggml.eos_token_id": words.number(TURN_END),
        "tokenizer.ggml.padding_token_id": words.number(PAD),
        "tokenizer.ggml.cls_token_id": words.number(CLASS),
        "tokenizer.ggml.seperator_token_id": words.number(SEPARATOR),
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
    }
    return values | ({"tokenizer.chat_template": template} if template else {})


def _adapter_tensors(seed: int) -> dict[str, Any]:
    name, rank = "blk.0.attn_q.weight", 4
    return {
        f"{name}.lora_a": _weights(f"{name}.lora_a", (rank, WIDTH), seed),
        f"{name}.lora_b": _weights(f"{name}.lora_b", (WIDTH, rank), seed),
    }


def _projector_tensors(seed: int) -> dict[str, Any]:
    shapes = {"v.patch_embd.weight": (32, 3, 16, 16), "mm.0.weight": (WIDTH, 32)}
    return {name: _weights(name, shape, seed) for name, shape in shapes.items()}


def _write(file: Path, values: Values, tensors: dict[str, Any]) -> None:
    """Write a GGUF file; whole numbers are stored as uint32 and others as float32."""
    writer = gguf.GGUFWriter(file, values["general.architecture"])
    for key, value in values.items():
        if key == "general.architecture":
            continue
        if isinstance(value, list):
            signed = key == "tokenizer.ggml.token_type"
            kind = gguf.GGUFValueType.INT32 if signed else _type_of(value[0])
            writer.add_key_value(key, value, gguf.GGUFValueType.ARRAY, sub_type=kind)
        else:
            writer.add_key_value(key, value, _type_of(value))
    for name, data in tensors.items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _type_of(value: object) -> gguf.GGUFValueType:
    types = gguf.GGUFValueType
    if isinstance(value, bool):
        return types.BOOL
    if isinstance(value, str):
        return types.STRING
    return types.FLOAT32 if isinstance(value, float) else types.UINT32


def _weights(name: str, shape: tuple[int, ...], seed: int) -> Any:
    """Return random numbers that keep the signal of a layer at about its size."""
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    noise = random.standard_normal(shape, dtype=np.float32)
    last = name.removesuffix(".weight").rpartition(".")[2]
    if name.startswith(("rope_freqs", "rope_factors")):
        return np.ones(shape, np.float32)
    if last == "ssm_a":
        # How fast a state decays: must be negative.
        return -np.abs(noise) - np.float32(0.05)
    if last == "time_mix_w0" or name.endswith("ssm_dt.bias"):
        # Slow steps, so that a state remembers some hundred tokens.
        return noise - 2
    if last == "token_embd_norm":
        return np.full(shape, 0.3 if name.endswith("weight") else 0, np.float32)
    if last in {"attn_q_norm", "attn_k_norm"}:
        return 2 + np.float32(0.1) * noise
    if name.endswith("weight") and ("norm" in last or last in _ABOUT_ONE):
        return 1 + np.float32(0.1) * noise
    if len(shape) == 1 or name.endswith("bias"):
        return np.float32(0.1) * noise
    if last == "token_embd":
        # Small beside what the layers add, so that more than the last token decides.
        return _without_rare(noise * np.float32(0.3))
    if last == "output":
        return _without_rare(noise * np.float32(4 / np.sqrt(shape[-1])))
    if "conv" in last:
        return np.float32(0.5) * noise
    # Sharp attention, so that answers depend on single earlier tokens.
    gain = 2.0 if last in _SHARP else 1.5
    return noise * np.float32(gain / np.sqrt(shape[-1]))


_ABOUT_ONE = {"time_mix_ln", "time_mix_k_a", "time_mix_k_k"}
_SHARP = {"attn_q", "attn_k", "attn_q_b", "attn_kv_a_mqa", "attn_output", "ssm_out"}


def _without_rare(rows: Any) -> Any:
    """Return a row for each token, with those of rare tokens so short that they are never best."""
    rare = vocabulary().rare()
    if len(rows) == NUM_TOKENS:
        rows[rare] *= np.float32(0.05)
    return rows


class _Tensor(ctypes.Structure):
    """The beginning of llama.cpp's `ggml_tensor`, and its name."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("lengths", ctypes.c_int64 * 4),
        ("strides", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offset", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
    )


class _ReadParams(ctypes.Structure):
    """`gguf_init_params`."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p))


@functools.cache
def _library(folder: Path) -> tuple[Any, Any, Any]:
    """Load llama.cpp; return (its bindings, libllama, libggml-base)."""
    os.environ["LLAMA_CPP_LIB_PATH"] = str(folder)
    import llama_cpp.llama_cpp as lib

    from llmd.worker.cpu.variants import load_best

    load_best(ctypes.CDLL(str(folder / "libggml.so")), folder, [])
    lib.llama_backend_init()
    raw = [ctypes.CDLL(str(folder / name)) for name in ("libllama.so", "libggml-base.so")]
    return lib, raw[0], raw[1]


def _shapes(header: Path, engine: Path, *, ranks: bool) -> Iterable[tuple[str, tuple[int, ...]]]:
    """Return the tensors that llama.cpp wants for the metadata of a file: (name, shape).

    A model that `ranks` has a classifier.
    """
    lib, llama, ggml = _library(engine)
    found: dict[str, tuple[int, ...]] = {}
    callback = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Tensor), ctypes.c_void_p)

    def on_tensor(pointer: Any, _data: object) -> None:
        tensor = pointer.contents
        lengths = list(tensor.lengths)
        while len(lengths) > 1 and lengths[-1] == 1:
            lengths.pop()
        found[tensor.name.decode()] = tuple(reversed(lengths))

    ggml.gguf_init_from_file.restype = ctypes.c_void_p
    ggml.gguf_init_from_file.argtypes = [ctypes.c_char_p, _ReadParams]
    params = lib.llama_model_default_params()
    llama.llama_model_init_from_user.restype = ctypes.c_void_p
    llama.llama_model_init_from_user.argtypes = [
        ctypes.c_void_p,
        callback,
        ctypes.c_void_p,
        type(params),
    ]
    metadata = ggml.gguf_init_from_file(str(header).encode(), _ReadParams(True, None))
    if not llama.llama_model_init_from_user(metadata, callback(on_tensor), None, params):
        sys.exit("llama.cpp refuses the metadata")
    # Optional tensors that files have for other purposes: scales of quantised ones, classifiers.
    return sorted(
        (name, shape)
        for name, shape in found.items()
        if not name.endswith("scale") and (ranks or not name.startswith("cls."))
    )


def _main() -> None:
    """Make one model: the child process of `made_model`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--template", default=TEMPLATE)
    parser.add_argument("--engine", type=Path, default=Path(sys.prefix, "engine"))
    asked = parser.parse_args()
    template = asked.template if KINDS[asked.kind].memory != "none" else ""
    values = model_values(asked.kind) | _tokenizer_values(template)
    with tempfile.TemporaryDirectory() as folder:
        header = Path(folder, "header.gguf")
        _write(header, values, {})
        shapes = _shapes(header, asked.engine, ranks=asked.kind.endswith("reranker"))
    tensors = {name: _weights(name, shape, asked.seed) for name, shape in shapes}
    _write(asked.file, values, tensors)


if __name__ == "__main__":
    _main()
    sys.stdout.flush()
    # Without the destructors of llama.cpp.
    os._exit(0)
