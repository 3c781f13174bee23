"""What kind of model a header describes, and what it can be used for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llmd.errors import ModelInvalid
from llmd.models import kinds
from llmd.models.kinds import Kind
from tests.support.gguf_file import (
    ADAPTER,
    ENCODER,
    ENCODER_DECODER,
    GOOD,
    PROJECTOR,
    RERANKER,
    build,
    flag,
    of,
    read,
    string,
    u32,
)

HEAD = ("blk.0.attn_q.weight", "cls.output.weight")

FILES = {
    "llama": (GOOD, Kind.DECODER),
    "causal": (of("new", flag("new.attention.causal", value=True)), Kind.DECODER),
    "causal with pooling": (of("qwen3", u32("qwen3.pooling_type", 3)), Kind.DECODER),
    "recurrent": (of("mamba"), Kind.DECODER),
    "bert": (ENCODER, Kind.ENCODER),
    "bert without keys": (of("bert"), Kind.ENCODER),
    "not causal": (of("new", flag("new.attention.causal", value=False)), Kind.ENCODER),
    "half of t5": (of("new", tensors=("enc.blk.0.a", "token_embd.weight")), Kind.ENCODER),
    "t5": (ENCODER_DECODER, Kind.ENCODER_DECODER),
    "rank": (RERANKER, Kind.RERANKER),
    "encoder with rank": (of("bert", u32("bert.pooling_type", 4)), Kind.RERANKER),
    "old reranker": (of("bert", tensors=HEAD), Kind.RERANKER),
    "no pooling": (of("bert", u32("bert.pooling_type", 0), tensors=HEAD), Kind.RERANKER),
    "pooled": (of("bert", u32("bert.pooling_type", 1), tensors=HEAD), Kind.ENCODER),
    "bert with pooler": (of("bert", tensors=("blk.0.attn_q.weight", "cls.weight")), Kind.ENCODER),
    "decoder with classifier": (of("qwen3", tensors=HEAD), Kind.DECODER),
    "diffusion": (of("llada", flag("llada.attention.causal", value=False)), Kind.DIFFUSION),
    "speech": (of("wavtokenizer-dec"), Kind.SPEECH),
    "draft": (of("eagle3"), Kind.DRAFT),
    "projector": (PROJECTOR, Kind.PROJECTOR),
    "old projector": (build([string("general.architecture", "clip")]), Kind.PROJECTOR),
    "adapter": (ADAPTER, Kind.ADAPTER),
}


@pytest.mark.parametrize(("content", "kind"), FILES.values(), ids=FILES)
def test_the_header_tells_the_kind(content: bytes, kind: Kind, tmp_path: Path) -> None:
    """The kind follows from metadata and tensors, also for an architecture that nobody knows."""
    assert read(tmp_path, content).kind is kind


def allowed(check: Callable[[str, Kind], None]) -> set[Kind]:
    """Return the kinds that pass a check; check that errors name the file."""
    refused: dict[Kind, ModelInvalid] = {}
    for kind in Kind:
        try:
            check("x.gguf", kind)
        except ModelInvalid as error:
            refused[kind] = error
    for refusal in refused.values():
        assert refusal.message.startswith(("x.gguf is a ", "x.gguf is an "))
        assert refusal.param == "model"
    return set(Kind) - set(refused)


def test_each_kind_has_its_uses() -> None:
    """Only a decoder generates text; it, encoders and diffusion models make embeddings."""
    embeds = {Kind.DECODER, Kind.ENCODER, Kind.DIFFUSION}
    assert allowed(kinds.check_generates) == {Kind.DECODER}
    assert allowed(kinds.check_embeds) == embeds
    assert allowed(kinds.check_is_of_use) == embeds


def test_the_error_for_an_encoder_says_how_to_use_it() -> None:
    """Who wants text from an encoder is told about `[models] embedding`."""
    with pytest.raises(ModelInvalid, match=r"bert\.gguf is an encoder: .* \[models\] embedding"):
        kinds.check_generates("bert.gguf", Kind.ENCODER)
