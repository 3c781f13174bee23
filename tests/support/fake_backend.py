"""A fake backend whose model is arithmetic, and a fake clock."""

from __future__ import annotations

import array
import time
import zlib
from collections.abc import Callable

from llmd.engine.protocol import ChatPrompt, Part, Submit, TokenLogprob
from llmd.errors import InvalidField
from llmd.worker.backend import EmbeddingBackend, Matcher, StateBytes
from llmd.worker.kv.prefix import common_prefix
from llmd.worker.syntax import HERMES, Syntax

END = 256
"""The token that ends an answer. All other tokens are bytes."""

SPELLING = "<end>"
"""The spelling of `END`."""

NextToken = Callable[[list[int]], int]
"""The rule of a fake model: it returns the token that follows the given ones."""

GROUPED_STEPS_S = {1: 0.02, 2: 0.03, 4: 0.04, 7: 0.07, 8: 0.05, 16: 0.07, 32: 0.11}
"""Seconds of a step by its number of rows, less for full groups of four than for seven rows."""


def babble(tokens: list[int]) -> int:
    """Return a token that depends on all tokens before it, so an answer never changes."""
    digest = zlib.crc32(array.array("i", tokens).tobytes())
    return END if digest % 23 == 0 else ord("a") + digest % 26


def parrot(tokens: list[int]) -> int:
    """Return a token that depends on the last two only, so every answer repeats itself at last."""
    digest = zlib.crc32(array.array("i", tokens[-2:]).tobytes())
    return END if digest % 41 == 0 else ord("a") + digest % 5


def says(answer: str) -> NextToken:
    """Return a rule that answers every prompt ending in a colon with these bytes, then ends."""
    raw = answer.encode()

    def next_token(tokens: list[int]) -> int:
        num_said = len(tokens) - 1 - max(at for at, token in enumerate(tokens) if token == ord(":"))
        return raw[num_said] if num_said < len(raw) else END

    return next_token


class FakeSampler:
    """A sampler that returns the token that the backend's rule gives."""

    def __init__(self, backend: FakeBackend) -> None:
        self._backend = backend
        self.is_closed = False
        self.logprob: TokenLogprob | None = None
        self.is_complete = False

    def sample(self, output: int) -> int:
        assert not self.is_closed, "a closed sampler was used"
        return self._backend.next_token(self._backend.outputs.pop(output))

    def close(self) -> None:
        self.is_closed = True


class FakeBackend:
    """A model whose tokens are bytes, and whose KV memory asserts that it is used correctly.

    `resident` holds, for each slot, the tokens whose keys and values are there. With a recurrent
    model, a slot that is to be shortened becomes empty.
    """

    def __init__(
        self,
        *,
        next_token: NextToken = babble,
        num_context_tokens: int = 256,
        max_sequences: int = 4,
        max_batch_tokens: int = 32,
        recurrent: bool = False,
        window: int = 0,
        max_draft_tokens: int = 0,
        num_cells: int = 0,
        can_pad: bool = False,
        measured_steps_s: dict[int, float] | None = None,
    ) -> None:
        self.num_cells = num_cells
        self.can_pad = can_pad
        self.attention_share = 0.0
        self.measured_steps_s = measured_steps_s or {1: 1.0, max_batch_tokens: 1.0}
        self.next_token = next_token
        self.num_context_tokens = num_context_tokens
        self.max_sequences = max_sequences
        self.max_batch_tokens = max_batch_tokens
        self.can_truncate = not recurrent
        self.window = window
        self.max_draft_tokens = 0 if recurrent or (window and num_cells) else max_draft_tokens
        self.max_output_rows = min(max_sequences + 32, max_batch_tokens)
        self.loads = True
        self.resident: list[list[int]] = [[] for _ in range(max_sequences)]
        self.first_cells = [0] * max_sequences
        """The first position whose cell windowed layers still hold, for each slot."""
        self.states_at = [0] * max_sequences
        """The number of tokens that recurrent and windowed layers have seen, for each slot."""
        self.outputs: dict[int, list[int]] = {}
        self.steps: list[dict[int, int]] = []
        """For each decode, the number of tokens of each slot."""
        self.samplers: list[FakeSampler] = []
        self.num_tokenized = 0
        self.owners: set[str] = set()
        """The owners whose texts are cached."""
        self.num_vocabulary = END + 1
        self.build = "fake"
        self.syntax: Syntax = HERMES
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
        assert position == len(self.resident[slot]), "the position leaves a gap or is taken"
        assert position < self.num_context_tokens, "a token beyond the context"
        assert self.states_at[slot] == position, "a checkpoint was loaded, and its rest not cut off"
        if self.window:
            first_seen = max(0, position - self.window + 1)
            assert self.first_cells[slot] <= first_seen, "a token sees a cell that is not there"
        self.resident[slot].append(token)
        self.states_at[slot] += 1
        self._check_cells()
        self._batch.append((slot, output, position))

    def decode(self) -> float:
        assert self._batch, "the batch is empty"
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
        assert not self._batch, "a slot was truncated while tokens wait in the batch"
        resident = self.resident[slot]
        assert num_tokens <= len(resident), "more tokens were claimed than the slot holds"
        if not self.can_truncate and num_tokens < self.states_at[slot]:
            num_tokens = 0
        del resident[num_tokens:]
        self.states_at[slot] = min(self.states_at[slot], num_tokens)
        if not num_tokens:
            self.first_cells[slot] = 0
        return num_tokens

    def first_cell(self, slot: int) -> int:
        return self.first_cells[slot]

    def save(self, slot: int) -> bytes:
        tokens = self.resident[slot]
        if self.window:
            # Cells outside of every window are left out of a copy.
            first_cell = max(self.first_cells[slot], len(tokens) - self.window)
            tokens = [first_cell, *tokens]
        return array.array("i", tokens).tobytes()

    def load(self, slot: int, state: StateBytes) -> bool:
        assert not self.resident[slot], "a state was loaded over another"
        first_cell, tokens = self._read(state)
        # A load that fails may have written a part.
        self.resident[slot] = tokens if self.loads else tokens[:1]
        self.states_at[slot] = len(self.resident[slot])
        self.first_cells[slot] = first_cell
        self._check_cells()
        return self.loads

    def save_checkpoint(self, slot: int) -> bytes:
        return self.save(slot)

    def load_checkpoint(self, slot: int, state: StateBytes) -> bool:
        first_cell, tokens = self._read(state)
        assert self.resident[slot][: len(tokens)] == tokens, "a checkpoint of other tokens"
        self.states_at[slot] = len(tokens)
        self.first_cells[slot] = first_cell
        return self.loads

    def _read(self, state: StateBytes) -> tuple[int, list[int]]:
        """Return the first cell and the tokens of a copy."""
        numbers = list(array.array("i", bytes(state)))
        return (numbers[0], numbers[1:]) if self.window else (0, numbers)

    def _check_cells(self) -> None:
        assert not self.num_cells or sum(map(len, self.resident)) <= self.num_cells, "no cell free"

    def make_embedder(self) -> EmbeddingBackend:
        raise InvalidField("this fake makes no embeddings")

    @property
    def num_open_samplers(self) -> int:
        return sum(not sampler.is_closed for sampler in self.samplers)


class Clock:
    """A clock that advances by `pace_s` seconds at each reading."""

    def __init__(self) -> None:
        self.time_s = 0.0
        self.pace_s = 1.0

    def __call__(self) -> float:
        self.time_s += self.pace_s
        return self.time_s


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until another thread or process makes a condition true; fail after 20 seconds."""
    give_up_at = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up_at, "the condition did not become true"
        time.sleep(0.002)


def num_shared(tokens: list[int], others: list[list[int]]) -> int:
    """Return the length of the longest prefix that `tokens` share with one of the others."""
    return max((common_prefix(tokens, other) for other in others), default=0)
