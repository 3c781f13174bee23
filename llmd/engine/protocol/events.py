"""What a worker tells the daemon."""

from __future__ import annotations

from typing import Literal

import msgspec

FinishReason = Literal["stop", "length", "tool_calls", "cancelled"]


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The model serves. `num_context_tokens` is what one sequence can hold."""

    architecture: str
    num_parameters: int
    num_context_tokens: int
    max_sequences: int
    num_threads: int
    num_threads_batch: int
    cpu_variant: str
    has_chat_template: bool
    num_vocabulary: int = 0
    num_embedding: int = 0
    num_trained_tokens: int = 0
    size_bytes: int = 0


class Loading(msgspec.Struct, frozen=True, tag="loading"):
    """Part of the model that is loaded, 0 to 1, by this variant of the CPU code."""

    progress: float
    cpu_variant: str = ""


class LoadFailed(msgspec.Struct, frozen=True, tag="load_failed"):
    """The model cannot be loaded, by its own fault or this machine's; the worker ends."""

    message: str
    is_models_fault: bool = True


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="started"):
    """A sequence has its slot; its prompt has these numbers of tokens and of old turns."""

    id: int
    num_prompt_tokens: int
    num_cached_tokens: int
    num_turns: int


class Candidate(msgspec.Struct, frozen=True, array_like=True):
    """A token that could have been chosen, with its natural log probability."""

    token: int
    text: bytes
    logprob: float


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """A chosen token, and the most likely ones in its place, the likeliest first."""

    chosen: Candidate
    top: list[Candidate]


class Delta(msgspec.Struct, frozen=True, tag="delta"):
    """Further text of an answer, with the log probabilities of the tokens since the last one."""

    id: int
    text: str
    logprobs: list[TokenLogprob] = []


class Reasoning(msgspec.Struct, frozen=True, tag="reasoning"):
    """Further text of what the model thinks before its answer."""

    id: int
    text: str


class CallDelta(msgspec.Struct, frozen=True, kw_only=True, tag="call"):
    """A tool call begins (`name`), or goes on (`arguments`, a piece of JSON text).

    `index` counts the calls of an answer from 0.
    """

    id: int
    index: int
    name: str = ""
    arguments: str = ""


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """An answer is at its end. Of the drafted tokens, which were guessed, some were right."""

    id: int
    finish_reason: FinishReason
    num_completion_tokens: int
    queue_ms: float
    prefill_ms: float
    decode_ms: float
    num_drafted_tokens: int = 0
    num_accepted_tokens: int = 0


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """A request that cannot be served, or not to its end. Both numbers: a prompt too long."""

    id: int
    message: str
    param: str = "prompt"
    num_prompt_tokens: int = 0
    num_context_tokens: int = 0


class Tokens(msgspec.Struct, frozen=True, kw_only=True, tag="tokens"):
    """The tokens of a text, and the bytes of each."""

    id: int
    tokens: list[int]
    pieces: list[bytes]


class Text(msgspec.Struct, frozen=True, tag="text"):
    """A text that was asked for."""

    id: int
    text: str


class Embedded(msgspec.Struct, frozen=True, kw_only=True, tag="embedded"):
    """A vector for each input: float32 in the order of this machine, of length 1."""

    id: int
    vectors: list[bytes]
    num_tokens: int


class KeptState(msgspec.Struct, frozen=True, kw_only=True):
    """What is computed of a session, and where it is: in use or ready in a slot, or kept."""

    owner: str
    session: str
    place: Literal["slot", "memory", "disk"]
    num_tokens: int


class KeptStates(msgspec.Struct, frozen=True, tag="kept_states"):
    """Everything that is warm, the quickest to go on from first."""

    id: int
    states: list[KeptState]


class Beat(msgspec.Struct, frozen=True, kw_only=True, tag="beat"):
    """Totals since the start and the counts of this moment; `step_s` is 0 between steps.

    The last step took `num_step_tokens` through the model.
    """

    num_running: int
    num_waiting: int
    num_prompt_tokens: int
    num_cached_tokens: int
    num_completion_tokens: int
    num_drafted_tokens: int = 0
    num_accepted_tokens: int = 0
    num_step_tokens: int = 0
    step_s: float


Answered = Tokens | Text | Embedded | KeptStates
"""What ends a `Query`."""

Progress = Started | Delta | Reasoning | CallDelta
"""What a request brings before its end."""

Event = ModelInfo | Loading | LoadFailed | Progress | Done | Refused | Answered | Beat
