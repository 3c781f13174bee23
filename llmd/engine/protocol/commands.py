"""What the daemon tells a worker."""

from __future__ import annotations

from typing import Literal

import msgspec

from llmd.engine.protocol.prompt import ChatPrompt, Prompt


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How a token is chosen. Temperature 0 is greedy; a `top_k` of 0 and a `top_p` of 1 are off.

    `logit_bias` is added to the logits of tokens, by id.
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
    """The answer must be JSON that is valid by this schema, a JSON text."""

    schema: str


class Grammar(msgspec.Struct, frozen=True, tag="grammar"):
    """The answer must be of this grammar, in llama.cpp's GBNF."""

    text: str


Constraint = JsonSchema | Grammar


class Start(msgspec.Struct, frozen=True, kw_only=True, tag="start"):
    """First command: which model to load, and how. A thread count of 0: as many as fit.

    Up to `max_draft_tokens` of a sequence are guessed in each step. `avoid_variants` names CPU code
    that has died on this processor. With `embeds_only` the model generates nothing: it may be one
    that cannot.
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
    """Generate. `owner` bounds the reuse of KV; `session` tells which to drop with a session.

    `num_logprobs` asks for the log probability of each token and of so many others; None for
    none. Tools in the prompt bound the answer too, so a `constraint` excludes them. With
    `ignores_end` the answer goes on beyond the model's own end: for measurements.
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
    """Stop generating: answered by a `Done` with the reason ``cancelled``."""

    id: int


class Forget(msgspec.Struct, frozen=True, kw_only=True, tag="forget"):
    """Drop the KV of an owner's session; of all its sessions when `session` is None."""

    owner: str
    session: str | None = None


class Tokenize(msgspec.Struct, frozen=True, kw_only=True, tag="tokenize"):
    """Answered by `Tokens`. `with_special`: begin as a prompt does; `parse_special`: read them."""

    id: int
    text: str
    with_special: bool = False
    parse_special: bool = True


class Detokenize(msgspec.Struct, frozen=True, tag="detokenize"):
    """Answered by `Text`."""

    id: int
    tokens: list[int]


class Render(msgspec.Struct, frozen=True, tag="render"):
    """Answered by `Text`: the prompt that the model's chat template makes."""

    id: int
    prompt: ChatPrompt


class Embed(msgspec.Struct, frozen=True, tag="embed"):
    """Answered by `Embedded`. An input is a text, or tokens that the client made itself."""

    id: int
    inputs: list[str | list[int]]


class ListStates(msgspec.Struct, frozen=True, tag="list_states"):
    """Answered by `KeptStates`."""

    id: int


Query = Tokenize | Detokenize | Render | Embed | ListStates
"""Commands that are answered by one event."""

Command = Start | Submit | Cancel | Forget | Query
