"""The events that a worker sends to the daemon."""

from __future__ import annotations

from typing import Literal

import msgspec

FinishReason = Literal["stop", "length", "tool_calls", "cancelled"]


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The model is ready. `num_context_tokens` is the context of a single sequence."""

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
    """The part of the model that is loaded, 0 to 1, and the variant of the CPU code in use."""

    progress: float
    cpu_variant: str = ""


class LoadFailed(msgspec.Struct, frozen=True, tag="load_failed"):
    """The model cannot be loaded, and the worker ends.

    `is_models_fault` is False if the reason is this machine: a lack of memory, for example.
    """

    message: str
    is_models_fault: bool = True


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="started"):
    """A sequence has a slot, so its prompt is accepted.

    `num_turns` counts the old turns in the prompt.
    """

    id: int
    num_prompt_tokens: int
    num_cached_tokens: int
    num_turns: int


class Candidate(msgspec.Struct, frozen=True, array_like=True):
    """A token with its natural log probability."""

    token: int
    text: bytes
    logprob: float


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """A chosen token and the most probable alternatives, the most probable first."""

    chosen: Candidate
    top: list[Candidate]


class Delta(msgspec.Struct, frozen=True, tag="delta"):
    """More text of an answer, with the log probabilities of the tokens since the last event."""

    id: int
    text: str
    logprobs: list[TokenLogprob] = []


class Reasoning(msgspec.Struct, frozen=True, tag="reasoning"):
    """More text of the reasoning that comes before the answer."""

    id: int
    text: str


class CallDelta(msgspec.Struct, frozen=True, kw_only=True, tag="call"):
    """The beginning of a tool call, with its `name`, or a further piece of its `arguments`.

    The arguments are JSON text. `index` counts the calls of an answer from 0.
    """

    id: int
    index: int
    name: str = ""
    arguments: str = ""


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """The end of an answer. Drafted tokens were guessed; accepted ones were guessed correctly."""

    id: int
    finish_reason: FinishReason
    num_completion_tokens: int
    queue_ms: float
    prefill_ms: float
    decode_ms: float
    num_drafted_tokens: int = 0
    num_accepted_tokens: int = 0


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """A request cannot be served, or cannot be completed.

    Both numbers of tokens are set if the prompt is too long.
    """

    id: int
    message: str
    param: str = "prompt"
    num_prompt_tokens: int = 0
    num_context_tokens: int = 0


class Tokens(msgspec.Struct, frozen=True, kw_only=True, tag="tokens"):
    """The tokens of a text and the bytes of each token."""

    id: int
    tokens: list[int]
    pieces: list[bytes]


class Text(msgspec.Struct, frozen=True, tag="text"):
    """The text that answers a query."""

    id: int
    text: str


class Embedded(msgspec.Struct, frozen=True, kw_only=True, tag="embedded"):
    """A vector for each input: float32 in native byte order, normalised to length 1."""

    id: int
    vectors: list[bytes]
    num_tokens: int


class KeptState(msgspec.Struct, frozen=True, kw_only=True):
    """The KV state of a session, and whether it is in a slot, in memory or on disk."""

    owner: str
    session: str
    place: Literal["slot", "memory", "disk"]
    num_tokens: int


class KeptStates(msgspec.Struct, frozen=True, tag="kept_states"):
    """The KV states of all sessions, the fastest to continue from first."""

    id: int
    states: list[KeptState]


class Beat(msgspec.Struct, frozen=True, kw_only=True, tag="beat"):
    """The counters of the worker.

    Numbers of tokens are totals since the start of the worker, but `num_step_tokens` is the
    number of tokens in the last step. `step_s` is the duration of that step, or 0 for a beat
    between steps.
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
"""The events that answer a `Query`."""

Progress = Started | Delta | Reasoning | CallDelta
"""The events of a request before its end."""

Event = ModelInfo | Loading | LoadFailed | Progress | Done | Refused | Answered | Beat
