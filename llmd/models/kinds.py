"""The kinds of models, as their headers tell them, and what each can be used for."""

from __future__ import annotations

import enum
from collections.abc import Set as AbstractSet

from llmd.errors import ModelInvalid


class Kind(enum.Enum):
    """What a GGUF file contains."""

    DECODER = "decoder"
    ENCODER = "encoder"
    ENCODER_DECODER = "encoder-decoder"
    RERANKER = "reranker"
    DIFFUSION = "diffusion"
    SPEECH = "speech"
    DRAFT = "draft"
    PROJECTOR = "projector"
    ADAPTER = "adapter"


_EMBEDS = {Kind.DECODER, Kind.ENCODER, Kind.DIFFUSION}

# What to tell those who want text from a model that is no decoder.
_NO_TEXT = {
    Kind.ENCODER: "an encoder: it makes embeddings; set [models] embedding to use it",
    Kind.ENCODER_DECODER: "an encoder-decoder model, as T5 is, which llmd cannot run",
    Kind.RERANKER: "a reranker: it rates how well texts answer a question, and writes none",
    Kind.DIFFUSION: (
        "a diffusion model, which does not write from left to right: llmd can only make "
        "embeddings with it; set [models] embedding to use it"
    ),
    Kind.SPEECH: "a speech model: it makes sound, and writes no text",
    Kind.DRAFT: "a draft model: it guesses tokens for another model, and cannot run alone",
    Kind.PROJECTOR: (
        "a projector, which brings images or sound into another model: llmd cannot use it"
    ),
    Kind.ADAPTER: (
        "an adapter, which changes another model: llmd cannot use it until it is merged into "
        "that model with `llama-export-lora`"
    ),
}

_ARCHITECTURES = {
    # `llm_arch_is_diffusion` in llama-arch.cpp.
    **dict.fromkeys(("dream", "llada", "llada-moe", "rnd1"), Kind.DIFFUSION),
    # Those for which `llama_model::create_memory` in llama-model.cpp makes none, so that a token
    # cannot follow others, or whose attention has no cache.
    **dict.fromkeys(
        (
            "bert",
            "eurobert",
            "gemma-embedding",
            "jina-bert-v2",
            "jina-bert-v3",
            "llama-embed",
            "modern-bert",
            "neo-bert",
            "nomic-bert",
            "nomic-bert-moe",
        ),
        Kind.ENCODER,
    ),
    # Their output is the code of sounds: `tools/tts` and `tools/mtmd`.
    **dict.fromkeys(("pockettts", "qwen3tts", "wavtokenizer-dec"), Kind.SPEECH),
    # `llama_context` in llama-context.cpp wants the context of another model for them (ctx_other).
    **dict.fromkeys(("dflash", "eagle3", "gemma4-assistant"), Kind.DRAFT),
}
"""The kinds that only llama.cpp's code tells, as of llama-cpp-python 0.3.36."""

_NO_POOLING, _RANK = 0, 4
"""Numbers of `llama_pooling_type`."""


def kind_of(
    architecture: str, *, pooling: int | None, is_causal: bool, tensor_prefixes: AbstractSet[str]
) -> Kind:
    """Return the kind of a whole model.

    `pooling` is the number of `llama_pooling_type`, if there is one. `tensor_prefixes` are the
    first word and the first two words of each tensor's name.
    """
    if known := _ARCHITECTURES.get(architecture):
        kind = known
    elif "enc" in tensor_prefixes:
        kind = Kind.ENCODER_DECODER if "dec" in tensor_prefixes else Kind.ENCODER
    else:
        kind = Kind.DECODER if is_causal else Kind.ENCODER
    if kind in {Kind.DECODER, Kind.ENCODER} and pooling == _RANK:
        return Kind.RERANKER
    # Older converters wrote the classifier of an encoder that is a reranker, but not its pooling.
    is_classifier = "cls.output" in tensor_prefixes and pooling in {None, _NO_POOLING}
    return Kind.RERANKER if kind is Kind.ENCODER and is_classifier else kind


def check_generates(name: str, kind: Kind) -> None:
    """Raise ModelInvalid if a model of this kind generates no text."""
    if kind is not Kind.DECODER:
        raise _refusal(name, kind)


def check_embeds(name: str, kind: Kind) -> None:
    """Raise ModelInvalid if a model of this kind makes no embeddings."""
    if kind not in _EMBEDS:
        raise _refusal(name, kind)


def check_is_of_use(name: str, kind: Kind) -> None:
    """Raise ModelInvalid if llmd can do nothing with a model of this kind."""
    check_embeds(name, kind)


def _refusal(name: str, kind: Kind) -> ModelInvalid:
    return ModelInvalid(f"{name} is {_NO_TEXT[kind]}", param="model")
