"""One request on its way through the scheduler."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from llmd.engine.protocol import Done, FinishReason, Submit
from llmd.worker.answer.stream import AnswerStream
from llmd.worker.backend import Sampler
from llmd.worker.kv.conversation import Conversation
from llmd.worker.scheduling.prompt_lookup import PromptLookup


class Status(enum.Enum):
    """The state of a sequence, which only `Scheduler` changes."""

    WAITING = "waiting"
    PREFILL = "prefill"
    DECODE = "decode"
    FINISHED = "finished"


@dataclass(eq=False)
class Sequence:
    """The tokens of a prompt and of its answer.

    Half-open ranges of positions, while it decodes::

        0               num_prompt_tokens       len(tokens)        max_total_tokens
        |---- prompt ---------|------ answer -------|---- num_remaining ---|
        |-------------- num_computed ------------|1 |
                                                 |-- num_drafted --|

    ``tokens[:num_computed]`` have their keys and values in the slot. In `Status.PREFILL` the rest
    of the prompt has not; in `Status.DECODE` exactly the last token has not, since it was sampled
    last and goes into the next step. After a step with a draft, and until its tokens are checked,
    the slot also holds keys and values of `num_drafted` tokens beyond `num_computed`.
    """

    request: Submit
    tokens: list[int]
    num_turns: int
    num_context_tokens: int
    stream: AnswerStream
    submitted_at: float
    is_thinking: bool = False
    """Whether the prompt ends within a thought of the model."""
    num_shareable: int = 0
    """The length of the chat template's own prefix, as long as it is still to be kept."""
    checkpoints: list[int] = field(default_factory=list)
    """The numbers of tokens after which to keep a checkpoint, in order, as far as still to come."""
    sampler: Sampler | None = None
    """Made last, when nothing can refuse the request any more, since it holds native memory."""
    num_prompt_tokens: int = field(init=False)
    max_total_tokens: int = field(init=False)
    """The length of the prompt with the longest answer allowed."""
    status: Status = Status.WAITING
    num_computed: int = 0
    num_drafted: int = 0
    num_expected: int = 0
    """While it waits: how many of its tokens it should find in KV memory when it is admitted."""
    num_passed_over: int = 0
    """How often others were admitted or read before it."""
    lookup: PromptLookup | None = None
    forgotten: bool = False
    """Whether its session was deleted while it waited: what it computes is dropped at its end."""
    started_at: float = 0.0
    decoded_at: float = 0.0

    def __post_init__(self) -> None:
        self.num_prompt_tokens = len(self.tokens)
        self.max_total_tokens = min(
            self.num_prompt_tokens + self.request.max_tokens, self.num_context_tokens
        )

    @property
    def conversation(self) -> Conversation:
        """The key and the session that the request belongs to."""
        return Conversation(self.request.owner, self.request.session)

    @property
    def num_completion_tokens(self) -> int:
        """The number of tokens of the answer, without the one that ends it."""
        return len(self.tokens) - self.num_prompt_tokens

    @property
    def num_unread(self) -> int:
        """The number of tokens still to be computed; an expectation while it waits."""
        return len(self.tokens) - max(self.num_computed, self.num_expected)

    @property
    def num_remaining(self) -> int:
        """How many further tokens may be generated."""
        return self.max_total_tokens - len(self.tokens)

    @property
    def is_full(self) -> bool:
        """Whether no further token may be generated."""
        return len(self.tokens) >= self.max_total_tokens

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
            num_drafted_tokens=self.lookup.num_drafted if self.lookup else 0,
            num_accepted_tokens=self.lookup.num_accepted if self.lookup else 0,
        )
