"""Check whether reuse, restored states and drafts change a greedy answer, token by token.

    exactness.py MODEL [PROMPTS]

Each prompt is the second turn of a conversation. The reference computes it from its first token,
without drafts. The other cases continue from the state that the first turn left: in its slot, in
RAM after another request used the slot, or on disk; and with drafts.

llama.cpp's rounding depends on the number of tokens in a batch. So an answer that differs is
compared with a matched reference: llama.cpp alone computes the whole conversation once more, in
batches of the same sizes, without a scheduler or saved states. In addition, the reference's log
probabilities at the first different token show how close the two tokens were.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import sys
import tempfile
import time
from pathlib import Path

from llmd import config
from llmd.engine.protocol import (
    Delta,
    Event,
    Part,
    Sampling,
    Start,
    Submit,
    TokenLogprob,
    TokenPrompt,
)
from llmd.worker.kv.disk import DiskStates, fingerprint_of
from llmd.worker.llama.context import LlamaBackend
from llmd.worker.llama.model import LoadedModel
from llmd.worker.scheduling.scheduler import Scheduler

NUM_ANSWER = 32
NUM_LIKELIEST = 5
TEXTS = ("README.md", "ARCHITECTURE.md", "docs/api.md", "docs/operations.md", "docs/clients.md")
_PROMPT_CHARS = 400
_NEXT = "\n\nNow say it in other words, and then once more:\n"
_ids = itertools.count(1)


Piece = list[tuple[int, int, bool]]
"""The contents of one batch: tokens, each with its position and whether it needs logits."""


class RecordingBackend(LlamaBackend):
    """A backend that records its batches."""

    def __init__(self, loaded: LoadedModel, start: Start) -> None:
        self.pieces: list[Piece] = [[]]
        super().__init__(loaded, start)

    def add(self, token: int, position: int, slot: int, *, output: bool) -> None:
        """Record a token, and add it to the batch."""
        self.pieces[-1].append((token, position, output))
        super().add(token, position, slot, output=output)

    def decode(self) -> float:
        """Run the batch; the next tokens belong to a new one."""
        self.pieces.append([])
        return super().decode()

    def take_pieces(self) -> list[Piece]:
        """Return the batches since the last call."""
        taken, self.pieces = self.pieces[:-1], [[]]
        return taken


class MatchedReference:
    """llama.cpp alone, which computes given batches and finds the most likely tokens."""

    def __init__(self, loaded: LoadedModel, model: str) -> None:
        self._backend = LlamaBackend(loaded, _start(model))

    def answer(self, pieces: list[Piece], begin: int) -> list[int]:
        """Return the most likely token after position `begin` - 1 and after each later one."""
        backend = self._backend
        likeliest: dict[int, int] = {}
        for piece in pieces:
            # Remove what a rejected draft left, or the whole last conversation.
            backend.truncate(0, piece[0][1])
            for token, position, output in piece:
                backend.add(token, position, 0, output=output)
            backend.decode()
            for row, (_, position, output) in enumerate(piece):
                if output:
                    likeliest[position] = int(backend.tools.logits.row(row).argmax())
        return [token for position, token in sorted(likeliest.items()) if position >= begin - 1]


class OneSlot:
    """A scheduler with one slot, with or without drafts and saved states."""

    def __init__(self, loaded: LoadedModel, model: str, *, draft: int, folder: Path | None) -> None:
        start = _start(model, draft)
        self.backend = RecordingBackend(loaded, start)
        disk = None
        if folder is not None:
            fingerprint = fingerprint_of(Path(model), self.backend.build, start.kv_type)
            disk = DiskStates(folder, fingerprint, 1 << 30, print)
        self._events: list[Event] = []
        self.scheduler = Scheduler(
            self.backend,
            self._events.append,
            # With a disk, only there: RAM would be searched first.
            max_state_bytes=0 if disk else 1 << 30,
            clock=time.monotonic,
            disk=disk,
        )

    def answer(
        self, tokens: list[int], owner: str, num_tokens: int = NUM_ANSWER
    ) -> list[TokenLogprob]:
        """Return the tokens of the greedy answer, each with the most likely alternatives."""
        request = Submit(
            id=next(_ids),
            owner=owner,
            session=owner,
            prompt=TokenPrompt(tokens=tokens),
            sampling=Sampling(temperature=0),
            max_tokens=num_tokens,
            num_logprobs=NUM_LIKELIEST,
            ignores_end=True,
        )
        self.scheduler.submit(request)
        while self.scheduler.has_work:
            self.scheduler.step()
        said = [one for event in self._events if isinstance(event, Delta) for one in event.logprobs]
        self._events.clear()
        return said

    def evict(self) -> None:
        """Save the state, and use the slot for another owner."""
        self.scheduler.save_one()
        number = next(_ids)
        self.answer([1000 + number % 1000, 2000], f"other {number}", 1)


class Case:
    """One way to continue from a first turn, and the comparison of its answers."""

    def __init__(
        self, name: str, slot: OneSlot, *, reuses: bool = True, evicts: bool = False
    ) -> None:
        self.name = name
        self._slot = slot
        self._reuses = reuses
        self._evicts = evicts
        self._num_same = 0
        self._num_matched = 0
        self._gaps: list[float] = []

    def compare(
        self,
        prompt: list[int],
        turn: list[int],
        expected: list[TokenLogprob],
        matched: MatchedReference,
    ) -> None:
        """Answer a turn, and count whether the answer is that of a reference."""
        slot, owner = self._slot, f"{self.name} {next(_ids)}"
        slot.backend.take_pieces()
        pieces: list[Piece] = []
        if self._reuses:
            slot.answer(prompt, owner)
            pieces += slot.backend.take_pieces()
        if self._evicts:
            slot.evict()
            slot.backend.take_pieces()
        found = _tokens(slot.answer(turn, owner))
        pieces += slot.backend.take_pieces()
        gap = _gap(expected, found)
        if gap is None:
            self._num_same += 1
            return
        self._gaps.append(gap)
        self._num_matched += matched.answer(pieces, len(turn))[: len(found)] == found

    def __str__(self) -> str:
        """Return the results in one line."""
        num = self._num_same + len(self._gaps)
        line = f"{self.name:12} {self._num_same:4} of {num} are the same"
        if not self._gaps:
            return line
        return (
            f"{line}; {self._num_matched} of the other {len(self._gaps)} match the matched "
            f"reference, and are within {max(self._gaps):.4f} of the plain one in log probability"
        )


def main(model: str, num_prompts: str = "200") -> None:
    """Print for each case how many answers are the same, and how close the others are."""
    loaded = LoadedModel(_start(model), lambda _done, _variant: None)
    folder = Path(tempfile.mkdtemp(prefix="llmd-exact-"))
    num_draft = config.Engine().draft
    reference = OneSlot(loaded, model, draft=0, folder=None)
    matched = MatchedReference(loaded, model)
    cases = (
        Case("slot", OneSlot(loaded, model, draft=0, folder=None)),
        Case("RAM", OneSlot(loaded, model, draft=0, folder=None), evicts=True),
        Case("disk", OneSlot(loaded, model, draft=0, folder=folder), evicts=True),
        Case("draft", OneSlot(loaded, model, draft=num_draft, folder=None), reuses=False),
        Case("draft, RAM", OneSlot(loaded, model, draft=num_draft, folder=None), evicts=True),
    )
    prompts = _prompts(reference.backend, int(num_prompts))
    with contextlib.suppress(KeyboardInterrupt):
        for number, prompt in enumerate(prompts):
            first = _tokens(reference.answer(prompt, f"first {number}"))
            turn = [*prompt, *first, *reference.backend.tokenize([Part(text=_NEXT)], begin=False)]
            expected = reference.answer(turn, f"second {number}")
            for case in cases:
                case.compare(prompt, turn, expected, matched)
            print(f"\r{number + 1} of {len(prompts)}", end="", file=sys.stderr)
    print(file=sys.stderr)
    for case in cases:
        print(case)


def _start(model: str, draft: int = 0) -> Start:
    """Return the default settings for a model, but with a single sequence."""
    settings = config.Engine()
    return Start(
        model_path=model,
        library_dir=str(Path(sys.prefix, "engine")),
        num_context_tokens=2048,
        max_sequences=1,
        max_batch_tokens=settings.batch,
        num_threads=settings.threads,
        num_threads_batch=settings.threads_batch,
        kv_type=settings.kv_type,
        # The scheduler limits the saved states.
        max_state_bytes=0,
        max_draft_tokens=draft,
    )


def _prompts(backend: LlamaBackend, number: int) -> list[list[int]]:
    """Return excerpts of this project's own texts, as tokens."""
    text = "\n".join(Path(name).read_text() for name in TEXTS)
    step = max(1, (len(text) - _PROMPT_CHARS) // number)
    pieces = [text[at : at + _PROMPT_CHARS] for at in range(0, step * number, step)]
    return [backend.tokenize([Part(text=piece)]) for piece in pieces]


def _tokens(answer: list[TokenLogprob]) -> list[int]:
    return [one.chosen.token for one in answer]


def _gap(expected: list[TokenLogprob], found: list[int]) -> float | None:
    """Return by how much the first different token is less likely by the reference, or None."""
    for one, token in zip(expected, found, strict=True):
        if one.chosen.token != token:
            logprobs = {other.token: other.logprob for other in one.top}
            return one.chosen.logprob - logprobs.get(token, -math.inf)
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
