"""The models that tests can make, with their hyper-parameters as GGUF metadata."""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.support.made_vocabulary import NUM_TOKENS

WINDOW = 64
"""Width of the sliding windows, in tokens."""

MAX_TOKENS = 4096
"""Context with which the models say they were trained, in tokens."""

WIDTH, _HEADS, _LAYERS = 64, 2, 2
_HEAD = WIDTH // _HEADS

Values = dict[str, Any]

_MIXER: Values = {
    "ssm.conv_kernel": 4,
    "ssm.state_size": 16,
    "ssm.inner_size": 2 * WIDTH,
    "ssm.time_step_rank": 4,
    "ssm.group_count": 2,
}
"""A Mamba layer."""

_EXPERTS: Values = {
    "expert_count": 4,
    "expert_used_count": 2,
    "expert_feed_forward_length": 64,
    "expert_shared_feed_forward_length": 64,
}

_WINDOWS: Values = {
    "attention.sliding_window": WINDOW,
    "attention.sliding_window_pattern": 2,
}

_HALF_ATTENTION: Values = {
    # A layer without heads is a recurrent one.
    "attention.head_count": [_HEADS, 0],
    "attention.head_count_kv": [_HEADS, 0],
}

_BOTH_WAYS: Values = {"attention.causal": False, "pooling_type": 1}
"""An encoder with the mean of its vectors; the number is llama.cpp's `llama_pooling_type`."""

_LAST, _RANK = 3, 4
"""Further numbers of `llama_pooling_type`."""


class Kind(NamedTuple):
    """A model to make: its architecture, and its keys over those that all have."""

    architecture: str
    memory: str
    """What llama.cpp keeps of earlier tokens, or "none" if the model generates no text."""
    values: Values


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


def model_values(kind: str) -> Values:
    """Return the metadata of a model, without that of its tokenizer."""
    architecture, _, values = KINDS[kind]
    common = {
        "vocab_size": NUM_TOKENS,
        "context_length": MAX_TOKENS,
        "embedding_length": WIDTH,
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
    return {
        "general.architecture": architecture,
        "general.type": "model",
        "general.name": f"Made {kind}",
        "general.file_type": 0,
    } | prefixed


def adapter_values() -> Values:
    """Return the metadata of the LoRA adapter."""
    return {
        "general.architecture": "llama",
        "general.type": "adapter",
        "general.name": "Made adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 8.0,
    }


def projector_values() -> Values:
    """Return the metadata of the projector."""
    vision = {
        "image_size": 32,
        "patch_size": 16,
        "embedding_length": 32,
        "feed_forward_length": 64,
        "projection_dim": WIDTH,
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
