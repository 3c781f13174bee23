"""The commands that the daemon sends to a worker."""

from __future__ import annotations

from typing import Literal

import msgspec

from llmd.engine.protocol.prompt import ChatPrompt, Prompt


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How tokens are sampled.

    Temperature 0 is greedy. `top_k` 0 and `top_p` 1 are off. `logit_bias` maps the IDs of tokens
    to numbers that are added to their logits.
    """

    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 40
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0
    logit_bias: dict[int, float] = {}


class JsonSchema(msgspec.Struct, frozen=True, tag="json_schema"):
    """Constrain the answer to JSON that matches a schema, which is given as JSON text."""

    schema: str


class Grammar(msgspec.Struct, frozen=True, tag="grammar"):
    """Constrain the answer to a grammar in llama.cpp's GBNF format."""

    text: str


Constraint = JsonSchema | Grammar


class Start(msgspec.Struct, frozen=True, kw_only=True, tag="start"):
    """Load a model: the first command of a worker.

    A number of threads of 0 lets the worker choose. In each step, up to `max_draft_tokens` tokens
    of a sequence are drafted. `avoid_variants` names variants of the CPU code of which a worker
    has died on this processor. With `embeds_only` the model serves embeddings alone, and need not
    be able to generate.
    """

    model_path: str
    library_dir: str
    num_context_tokens: int
    max_sequences: int
    max_batch_tokens: int
    num_threads: int
    num_threads_batch: int
    kv_type: str
    kv_unified: bool = False
    flash_attention: Literal["auto", "on", "off"] = "auto"
    max_state_bytes: int
    cache_dir: str = ""
    max_disk_bytes: int = 0
    max_draft_tokens: int = 0
    avoid_variants: list[str] = []
    embeds_only: bool = False


class Submit(msgspec.Struct, frozen=True, kw_only=True, tag="submit"):
    """Generate an answer.

    A KV state is reused only within the same `owner`; `Forget` finds it by `session`. With
    `num_logprobs`, report the log probability of each token and of that many alternatives. Tools
    in the prompt constrain the answer as well, so they exclude a `constraint`. With `ignores_end`,
    which is meant for measurements, generate beyond the model's end-of-text token.
    """

    id: int
    owner: str
    prompt: Prompt
    sampling: Sampling
    max_tokens: int
    stop: list[str] = []
    session: str = ""
    num_turns: int = 0
    max_context_tokens: int | None = None
    constraint: Constraint | None = None
    num_logprobs: int | None = None
    ignores_end: bool = False


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Stop generating. The worker answers with a `Done` whose reason is ``cancelled``."""

    id: int


class Forget(msgspec.Struct, frozen=True, kw_only=True, tag="forget"):
    """Delete the KV states of an owner's session; of all its sessions if `session` is None."""

    owner: str
    session: str | None = None


class Tokenize(msgspec.Struct, frozen=True, kw_only=True, tag="tokenize"):
    """Split a text into tokens. The worker answers with `Tokens`.

    `with_special` adds the special tokens that begin a prompt; `parse_special` recognises special
    tokens that are spelled out in the text.
    """

    id: int
    text: str
    with_special: bool = False
    parse_special: bool = True


class Detokenize(msgspec.Struct, frozen=True, tag="detokenize"):
    """Join tokens into a text. The worker answers with `Text`."""

    id: int
    tokens: list[int]


class Render(msgspec.Struct, frozen=True, tag="render"):
    """Render a prompt with the model's chat template. The worker answers with `Text`."""

    id: int
    prompt: ChatPrompt


class Embed(msgspec.Struct, frozen=True, tag="embed"):
    """Compute embeddings. An input is a text or a list of tokens; `Embedded` is the answer."""

    id: int
    inputs: list[str | list[int]]


class ListStates(msgspec.Struct, frozen=True, tag="list_states"):
    """List the KV states of all sessions. The worker answers with `KeptStates`."""

    id: int


Query = Tokenize | Detokenize | Render | Embed | ListStates
"""Commands that the worker answers with a single event."""

Command = Start | Submit | Cancel | Forget | Query
