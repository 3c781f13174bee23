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
from typing import Any, NamedTuple

import gguf
import numpy as np

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

_ROOT = Path(__file__).parents[2]

MadeModels = Callable[[str], Path]
"""The fixture `made_models` of the end-to-end tests: from a kind of `KINDS` to its file."""

WINDOW = 64
"""Width of the sliding windows, in tokens."""

MAX_TOKENS = 4096
"""Context with which the models say they were trained, in tokens."""

_WIDTH, _HEADS, _LAYERS = 64, 2, 2
_HEAD = _WIDTH // _HEADS

_Values = dict[str, Any]

_MIXER: _Values = {
    "ssm.conv_kernel": 4,
    "ssm.state_size": 16,
    "ssm.inner_size": 2 * _WIDTH,
    "ssm.time_step_rank": 4,
    "ssm.group_count": 2,
}
"""A Mamba layer."""

_EXPERTS: _Values = {
    "expert_count": 4,
    "expert_used_count": 2,
    "expert_feed_forward_length": 64,
    "expert_shared_feed_forward_length": 64,
}

_WINDOWS: _Values = {
    "attention.sliding_window": WINDOW,
    "attention.sliding_window_pattern": 2,
}

_HALF_ATTENTION: _Values = {
    # A layer without heads is a recurrent one.
    "attention.head_count": [_HEADS, 0],
    "attention.head_count_kv": [_HEADS, 0],
}

_BOTH_WAYS: _Values = {"attention.causal": False, "pooling_type": 1}
"""An encoder with the mean of its vectors; the number is llama.cpp's `llama_pooling_type`."""

_LAST, _RANK = 3, 4
"""Further numbers of `llama_pooling_type`."""


class Kind(NamedTuple):
    """A model to make: its architecture, and its keys over those that all have."""

    architecture: str
    memory: str
    """What llama.cpp keeps of earlier tokens, or "none" if the model generates no text."""
    values: _Values


KINDS: dict[str, Kind] = {
    "llama": Kind("llama", "full", {}),
    "qwen3": Kind("qwen3", "full", {"attention.head_count_kv": 1}),
    "gemma3": Kind("gemma3", "window", _WINDOWS),
    "gemma4": Kind(
        "gemma4",
        "window",
        {
            "block_count": 5,
            "attention.sliding_window": WINDOW,
            "attention.sliding_window_pattern": [True, True, True, True, False],
            "attention.shared_kv_layers": 0,
            "attention.key_length_swa": _HEAD,
            "attention.value_length_swa": _HEAD,
            "rope.freq_base_swa": 10000.0,
            "rope.dimension_count_swa": _HEAD,
            "embedding_length_per_layer_input": 16,
        },
    ),
    "gpt-oss": Kind("gpt-oss", "window with sinks", _WINDOWS | _EXPERTS),
    "mamba": Kind("mamba", "recurrent", _MIXER),
    "rwkv7": Kind(
        "rwkv7",
        "recurrent",
        {
            "attention.head_count": 0,
            "attention.head_count_kv": 0,
            "wkv.head_size": _HEAD,
            "token_shift_count": 2,
            "attention.decay_lora_rank": 16,
            "attention.iclr_lora_rank": 16,
            "attention.value_residual_mix_lora_rank": 16,
            "attention.gate_lora_rank": 16,
        },
    ),
    "qwen3next": Kind(
        "qwen3next",
        "hybrid",
        _EXPERTS
        | {
            "full_attention_interval": 2,
            "ssm.conv_kernel": 4,
            "ssm.state_size": 16,
            "ssm.inner_size": 64,
            "ssm.time_step_rank": 4,
            "ssm.group_count": 2,
        },
    ),
    "granitehybrid": Kind(
        "granitehybrid",
        "hybrid",
        _MIXER | _HALF_ATTENTION | {"embedding_scale": 1.0, "residual_scale": 1.0},
    ),
    "lfm2": Kind("lfm2", "hybrid", _HALF_ATTENTION | {"shortconv.l_cache": 3}),
    "falcon-h1": Kind("falcon-h1", "hybrid", _MIXER),
    "deepseek2": Kind(
        "deepseek2",
        "full, MLA",
        _EXPERTS
        | {
            "leading_dense_block_count": 1,
            "expert_shared_count": 1,
            "expert_gating_func": 2,
            "attention.head_count": 2,
            "attention.head_count_kv": 1,
            "attention.q_lora_rank": 32,
            "attention.kv_lora_rank": 32,
            # The cache has the compressed part and the rotated part of a key.
            "attention.key_length": 32 + 16,
            "attention.value_length": 32,
            "attention.key_length_mla": 32 + 16,
            "attention.value_length_mla": 32,
            "rope.dimension_count": 16,
        },
    ),
    "bert": Kind("bert", "none", _BOTH_WAYS),
    "nomic-bert": Kind("nomic-bert", "none", _BOTH_WAYS),
    "gemma-embedding": Kind("gemma-embedding", "none", _WINDOWS | _BOTH_WAYS),
    "qwen3-embedding": Kind("qwen3", "full", {"pooling_type": _LAST}),
    "bert-reranker": Kind(
        "bert",
        "none",
        _BOTH_WAYS | {"pooling_type": _RANK, "classifier.output_labels": ["relevant"]},
    ),
    "qwen3-reranker": Kind(
        "qwen3", "none", {"pooling_type": _RANK, "classifier.output_labels": ["yes", "no"]}
    ),
    "t5": Kind(
        "t5",
        "none",
        {
            "attention.relative_buckets_count": 8,
            "decoder_start_token_id": 0,
            "decoder_block_count": _LAYERS,
        },
    ),
    "t5encoder": Kind("t5encoder", "none", {"attention.relative_buckets_count": 8}),
    "adapter": Kind("llama", "none", {}),
    "projector": Kind("clip", "none", {}),
}
"""The kinds that can be made. "adapter" is a LoRA adapter for "llama", "projector" its eye."""

GENERATING = [name for name, kind in KINDS.items() if kind.memory != "none"]
"""The kinds that generate text."""


def made_model(
    kind: str, folder: Path, *, seed: int = 1, template: str = TEMPLATE, name: str = ""
) -> Path:
    """Make a model of a kind of `KINDS` in `folder` and return its file; equal calls, equal bytes.

    The file is called `name`, or by its kind. Raise RuntimeError if llama.cpp refuses to make it.
    """
    file = folder / (name or f"{kind}.gguf")
    if kind == "adapter":
        _write(file, _adapter_values(), _adapter_tensors(seed))
    elif kind == "projector":
        _write(file, _projector_values(), _projector_tensors(seed))
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


def _model_values(kind: str, template: str) -> _Values:
    """Return the metadata of a model, without that of its tokenizer."""
    architecture, _, values = KINDS[kind]
    common = {
        "vocab_size": NUM_TOKENS,
        "context_length": MAX_TOKENS,
        "embedding_length": _WIDTH,
        "block_count": _LAYERS,
        "feed_forward_length": 96,
        "attention.head_count": _HEADS,
        "attention.head_count_kv": _HEADS,
        "attention.key_length": _HEAD,
        "attention.value_length": _HEAD,
        "attention.layer_norm_epsilon": 1e-5,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": _HEAD,
    }
    prefixed = {f"{architecture}.{key}": value for key, value in (common | values).items()}
    return (
        {"general.architecture": architecture, "general.type": "model"}
        | {"general.name": f"Made {kind}", "general.file_type": 0}
        | prefixed
        | _tokenizer_values(template if KINDS[kind].memory != "none" else "")
    )


def _tokenizer_values(template: str) -> _Values:
    """Return the metadata of the tokenizer, with the chat template if there is one."""
    words = vocabulary()
    values: _Values = {
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


def _adapter_values() -> _Values:
    return {
        "general.architecture": "llama",
        "general.type": "adapter",
        "general.name": "Made adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 8.0,
    }


def _adapter_tensors(seed: int) -> dict[str, Any]:
    name, rank = "blk.0.attn_q.weight", 4
    return {
        f"{name}.lora_a": _weights(f"{name}.lora_a", (rank, _WIDTH), seed),
        f"{name}.lora_b": _weights(f"{name}.lora_b", (_WIDTH, rank), seed),
    }


def _projector_values() -> _Values:
    vision = {
        "image_size": 32,
        "patch_size": 16,
        "embedding_length": 32,
        "feed_forward_length": 64,
        "projection_dim": _WIDTH,
        "block_count": 1,
        "attention.head_count": 2,
        "attention.layer_norm_epsilon": 1e-5,
    }
    return {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "general.name": "Made projector",
        "clip.has_vision_encoder": True,
        "clip.projector_type": "mlp",
    } | {f"clip.vision.{key}": value for key, value in vision.items()}


def _projector_tensors(seed: int) -> dict[str, Any]:
    shapes = {"v.patch_embd.weight": (32, 3, 16, 16), "mm.0.weight": (_WIDTH, 32)}
    return {name: _weights(name, shape, seed) for name, shape in shapes.items()}


def _write(file: Path, values: _Values, tensors: dict[str, Any]) -> None:
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


def _shapes(header: Path, engine: Path) -> Iterable[tuple[str, tuple[int, ...]]]:
    """Return the tensors that llama.cpp wants for the metadata of a file: (name, shape)."""
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
    # The scales of quantised tensors are optional, and not wanted with float32.
    return sorted((name, shape) for name, shape in found.items() if not name.endswith("scale"))


def _main() -> None:
    """Make one model: the child process of `made_model`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--template", default=TEMPLATE)
    parser.add_argument("--engine", type=Path, default=Path(sys.prefix, "engine"))
    asked = parser.parse_args()
    values = _model_values(asked.kind, asked.template)
    with tempfile.TemporaryDirectory() as folder:
        header = Path(folder, "header.gguf")
        _write(header, values, {})
        shapes = _shapes(header, asked.engine)
    tensors = {name: _weights(name, shape, asked.seed) for name, shape in shapes}
    _write(asked.file, values, tensors)


if __name__ == "__main__":
    _main()
    sys.stdout.flush()
    # Without the destructors of llama.cpp.
    os._exit(0)
