"""One request on its way through the scheduler."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from llmd.engine.protocol import Done, FinishReason, Submit
from llmd.worker.answer.stream import AnswerStream
from llmd.worker.backend import Sampler
from llmd.worker.scheduling.prompt_lookup import Draft


class Status(enum.Enum):
    """Where a sequence is: only `Scheduler` moves it on."""

    WAITING = "waiting"
    PREFILL = "prefill"
    DECODE = "decode"
    FINISHED = "finished"


@dataclass(eq=False)
class Sequence:
    """The tokens of a prompt and of its answer.

    ``tokens[:num_computed]`` have their keys and values in the slot. In `Status.DECODE` exactly
    the last token has not: it was sampled and goes into the next step.
    """

    request: Submit
    tokens: list[int]
    num_turns: int
    num_context_tokens: int
    stream: AnswerStream
    submitted_at: float
    is_thinking: bool = False
    """The prompt ends within a thought of the model."""
    num_shareable: int = 0
    """Tokens that are the chat template's words, and may be kept for everybody."""
    sampler: Sampler | None = None
    """Made when nothing can refuse the request any more: it holds native memory."""
    num_prompt_tokens: int = field(init=False)
    num_most_tokens: int = field(init=False)
    """How many there may be with the whole answer."""
    status: Status = Status.WAITING
    num_computed: int = 0
    num_waits: int = 0
    """Steps in which there was no room for any of its prompt."""
    draft: Draft | None = None
    guess: list[int] = field(default_factory=list)
    """Tokens in the batch behind the last one; their KV is in the slot beyond `num_computed`."""
    forgotten: bool = False
    """Its session was forgotten while it waited: its KV goes with its end."""
    started_at: float = 0.0
    decoded_at: float = 0.0

    def __post_init__(self) -> None:
        self.num_prompt_tokens = len(self.tokens)
        self.num_most_tokens = min(
            self.num_prompt_tokens + self.request.max_tokens, self.num_context_tokens
        )

    @property
    def num_completion_tokens(self) -> int:
        """Tokens of the answer, without the one that ends it."""
        return len(self.tokens) - self.num_prompt_tokens

    @property
    def num_uncomputed(self) -> int:
        """Tokens whose keys and values are still to be computed."""
        return len(self.tokens) - self.num_computed

    @property
    def num_possible(self) -> int:
        """How many further tokens may be generated."""
        return self.num_most_tokens - len(self.tokens)

    @property
    def is_full(self) -> bool:
        """Whether no further token may be generated."""
        return len(self.tokens) >= self.num_most_tokens

    def done(self, reason: FinishReason, now: float) -> Done:
        """Return the event that ends this sequence."""
        started = self.started_at or now
        decoded = self.decoded_at or now
        return Done(
            id=self.request.id,
            finish_reason=reason,
            num_completion_tokens=self.num_completion_tokens,
            queue_ms=1000 * (started - self.submitted_at),
            prefill_ms=1000 * (decoded - started),
            decode_ms=1000 * (now - decoded),
            num_drafted_tokens=self.draft.num_drafted if self.draft else 0,
            num_accepted_tokens=self.draft.num_accepted if self.draft else 0,
        )
