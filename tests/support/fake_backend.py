"""Fakes that several tests share: a model that is arithmetic, and time that stands still."""

from __future__ import annotations

import array
import time
import zlib
from collections.abc import Callable

from llmd.engine.protocol import ChatPrompt, Part, Submit, TokenLogprob
from llmd.errors import InvalidField
from llmd.worker.backend import Matcher, StateBytes
from llmd.worker.embedding_backend import EmbeddingBackend
from llmd.worker.kv.prefix import common_prefix
from llmd.worker.scheduling.step_cost import StepTime
from llmd.worker.syntax import choose

END = 256
"""The token that ends an answer, spelled ``<end>``; all others are bytes."""

SPELLING = "<end>"

NextToken = Callable[[list[int]], int]


def babble(tokens: list[int]) -> int:
    """Choose a token by all that came before: the answer to a prompt never changes."""
    digest = zlib.crc32(array.array("i", tokens).tobytes())
    return END if digest % 23 == 0 else ord("a") + digest % 26


def parrot(tokens: list[int]) -> int:
    """Choose a token by the last two alone: sooner or later it says the same again."""
    digest = zlib.crc32(array.array("i", tokens[-2:]).tobytes())
    return END if digest % 41 == 0 else ord("a") + digest % 5


def says(answer: str) -> NextToken:
    """Answer every prompt that ends in a colon with these bytes, then end."""
    raw = answer.encode()

    def next_token(tokens: list[int]) -> int:
        num_said = len(tokens) - 1 - max(at for at, token in enumerate(tokens) if token == ord(":"))
        return raw[num_said] if num_said < len(raw) else END

    return next_token


class FakeSampler:
    """Take the token that the backend's rule gives."""

    def __init__(self, backend: FakeBackend) -> None:
        self._backend = backend
        self.is_closed = False
        self.logprob: TokenLogprob | None = None
        self.is_complete = False

    def sample(self, output: int) -> int:
        assert not self.is_closed, "a closed sampler was asked"
        return self._backend.next_token(self._backend.outputs.pop(output))

    def close(self) -> None:
        self.is_closed = True


class FakeBackend:
    """A model of bytes whose KV memory checks every use of it.

    `resident` holds per slot the tokens whose keys and values are there. A recurrent one cannot
    go back to an earlier position.
    """

    def __init__(
        self,
        *,
        next_token: NextToken = babble,
        num_context_tokens: int = 256,
        max_sequences: int = 4,
        max_batch_tokens: int = 32,
        recurrent: bool = False,
        max_draft_tokens: int = 0,
        num_cells: int = 0,
        computes_in_fours: bool = False,
        step_time: StepTime | None = None,
    ) -> None:
        self.num_cells = num_cells
        self.computes_in_fours = computes_in_fours
        self.step_time = step_time or StepTime({1: 1.0, max_batch_tokens: 1.0}, max_batch_tokens)
        self.next_token = next_token
        self.num_context_tokens = num_context_tokens
        self.max_sequences = max_sequences
        self.max_batch_tokens = max_batch_tokens
        self.recurrent = recurrent
        self.max_draft_tokens = 0 if recurrent else max_draft_tokens
        self.max_output_rows = min(max_sequences + 32, max_batch_tokens)
        self.loads = True
        self.resident: list[list[int]] = [[] for _ in range(max_sequences)]
        self.outputs: dict[int, list[int]] = {}
        self.steps: list[dict[int, int]] = []
        """Of each decode: how many tokens of each slot."""
        self.samplers: list[FakeSampler] = []
        self.num_tokenized = 0
        self.owners: set[str] = set()
        """Those of whom texts are kept."""
        self.num_vocabulary = END + 1
        self.build = "fake"
        self.syntax = choose(None, knows_tools=False)
        self._batch: list[tuple[int, bool, int]] = []

    # Text

    def tokenize(
        self, parts: list[Part], *, begin: bool = True, owner: str | None = None
    ) -> list[int]:
        if owner is not None:
            self.owners.add(owner)
        self.num_tokenized += 1
        tokens: list[int] = []
        for part in parts:
            pieces = part.text.split(SPELLING) if part.literal else [part.text]
            for number, piece in enumerate(pieces):
                tokens += [END] * (number > 0)
                tokens += piece.encode()
        return tokens

    def forget(self, owner: str) -> None:
        self.owners.discard(owner)

    def render(self, prompt: ChatPrompt) -> list[Part]:
        messages = prompt.messages
        if any(message.content == "refuse me" for message in messages):
            raise InvalidField("the model's chat template refuses this")
        parts: list[Part] = []
        for message in messages:
            parts += [Part(text=f"{message.role}:", literal=True), Part(text=message.content)]
        return [*parts, Part(text="assistant:", literal=True)]

    def piece(self, token: int, *, special: bool = False) -> bytes:
        if token == END:
            return SPELLING.encode() if special else b""
        return bytes([token])

    def is_end(self, token: int) -> bool:
        return token == END

    # Steps

    def compile(self, request: Submit, *, is_thinking: bool) -> Matcher | None:
        return None

    def sampler(self, request: Submit, recent: list[int], matcher: Matcher | None) -> FakeSampler:
        self.samplers.append(FakeSampler(self))
        return self.samplers[-1]

    def add(self, token: int, position: int, slot: int, *, output: bool) -> None:
        assert 0 <= slot < self.max_sequences, "no such slot"
        assert 0 <= token <= END, "no such token"
        assert len(self._batch) < self.max_batch_tokens, "the batch is full"
        assert position == len(self.resident[slot]), "a gap or a token twice in the KV memory"
        assert position < self.num_context_tokens, "a token beyond the context"
        self.resident[slot].append(token)
        self._check_cells()
        self._batch.append((slot, output, position))

    def decode(self) -> float:
        assert self._batch, "a decode of nothing"
        assert sum(output for _, output, _ in self._batch) <= self.max_output_rows
        self.outputs = {
            row: self.resident[slot][: position + 1]
            for row, (slot, output, position) in enumerate(self._batch)
            if output
        }
        step: dict[int, int] = {}
        for slot, _, _ in self._batch:
            step[slot] = step.get(slot, 0) + 1
        self.steps.append(step)
        self._batch = []
        return 1.0

    def truncate(self, slot: int, num_tokens: int) -> int:
        assert not self._batch, "a slot was cut while its tokens wait in the batch"
        resident = self.resident[slot]
        assert num_tokens <= len(resident), "more tokens were claimed than the slot holds"
        if self.recurrent and num_tokens < len(resident):
            num_tokens = 0
        del resident[num_tokens:]
        return num_tokens

    def save(self, slot: int) -> bytes:
        return array.array("i", self.resident[slot]).tobytes()

    def load(self, slot: int, state: StateBytes) -> bool:
        assert not self.resident[slot], "a state was loaded over another"
        tokens = list(array.array("i", state))
        self.resident[slot] = tokens
        self._check_cells()
        # A load that fails may have written a part.
        self.resident[slot] = tokens if self.loads else tokens[:1]
        return self.loads

    def _check_cells(self) -> None:
        assert not self.num_cells or sum(map(len, self.resident)) <= self.num_cells, "no cell free"

    def make_embedder(self) -> EmbeddingBackend:
        raise InvalidField("this fake makes no vectors")

    @property
    def num_open_samplers(self) -> int:
        return sum(not sampler.is_closed for sampler in self.samplers)


class Clock:
    """Go on by `pace_s`, a second at first, whenever somebody looks."""

    def __init__(self) -> None:
        self.time_s = 0.0
        self.pace_s = 1.0

    def __call__(self) -> float:
        self.time_s += self.pace_s
        return self.time_s


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what other threads or processes do. Fail when it does not come about."""
    give_up_at = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up_at, "it did not come about"
        time.sleep(0.002)


def num_shared(tokens: list[int], others: list[list[int]]) -> int:
    """Return the longest beginning that `tokens` share with one of the others."""
    return max((common_prefix(tokens, other) for other in others), default=0)
