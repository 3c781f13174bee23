"""Whether reuse, restored states and guesses change an answer: greedy, token for token.

    exactness.py MODEL [PROMPTS]

Each of the prompts is the second turn of a conversation. The reference reads it from its first
token, guesses nothing and is alone. The others go on from what the first turn left: in its slot,
in RAM after others have had the slot, on the disk after that; with guesses, and each of these.

llama.cpp itself rounds differently with the number of tokens in a batch. An answer that differs is
compared with a matched reference: the whole conversation once more, in batches of the same sizes,
by llama.cpp alone, with nothing saved, restored, or decided by a scheduler. Besides, the plain
reference's logits at the first different token tell how near the two tokens were.
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
"""What one batch took: tokens, each with its position and whether its logits were wanted."""


class RecordingBackend(LlamaBackend):
    """A backend that notes the batches it is given."""

    def __init__(self, loaded: LoadedModel, start: Start) -> None:
        self.pieces: list[Piece] = [[]]
        super().__init__(loaded, start)

    def add(self, token: int, position: int, slot: int, *, output: bool) -> None:
        """Record a token, and add it to the batch."""
        self.pieces[-1].append((token, position, output))
        super().add(token, position, slot, output=output)

    def decode(self) -> float:
        """Run the batch; the next tokens are in another."""
        self.pieces.append([])
        return super().decode()

    def take_pieces(self) -> list[Piece]:
        """Return the batches since the last call."""
        taken, self.pieces = self.pieces[:-1], [[]]
        return taken


class MatchedReference:
    """The same batches by llama.cpp alone: which token is the likeliest after each position."""

    def __init__(self, loaded: LoadedModel, model: str) -> None:
        self._backend = LlamaBackend(loaded, _start(model))

    def answer(self, pieces: list[Piece], begin: int) -> list[int]:
        """Return what follows position `begin` - 1 and each later one, if read in these pieces."""
        backend = self._backend
        likeliest: dict[int, int] = {}
        for piece in pieces:
            # What a wrong guess left, or all of the last conversation.
            backend.truncate(0, piece[0][1])
            for token, position, output in piece:
                backend.add(token, position, 0, output=output)
            backend.decode()
            for row, (_, position, output) in enumerate(piece):
                if output:
                    likeliest[position] = int(backend.tools.logits.row(row).argmax())
        return [token for position, token in sorted(likeliest.items()) if position >= begin - 1]


class Place:
    """A scheduler of one slot over the model, with or without guesses and states."""

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
            # On the disk alone, where there is one: RAM would be asked first.
            max_state_bytes=0 if disk else 1 << 30,
            clock=time.monotonic,
            disk=disk,
        )

    def answer(
        self, tokens: list[int], owner: str, num_tokens: int = NUM_ANSWER
    ) -> list[TokenLogprob]:
        """Return the greedy answer's tokens, each with the likeliest in its place."""
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
        """Let another owner have the slot."""
        self.scheduler.save_one()
        number = next(_ids)
        self.answer([1000 + number % 1000, 2000], f"other {number}", 1)


class Way:
    """One way to go on from a first turn, and how its answers compare with the reference's."""

    def __init__(
        self, name: str, place: Place, *, reuses: bool = True, evicts: bool = False
    ) -> None:
        self.name = name
        self._place = place
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
        """Answer a turn, and note whether the answer is the expected one, or the matched one."""
        place, owner = self._place, f"{self.name} {next(_ids)}"
        place.backend.take_pieces()
        pieces: list[Piece] = []
        if self._reuses:
            place.answer(prompt, owner)
            pieces += place.backend.take_pieces()
        if self._evicts:
            place.evict()
            place.backend.take_pieces()
        found = _tokens(place.answer(turn, owner))
        pieces += place.backend.take_pieces()
        gap = _gap(expected, found)
        if gap is None:
            self._num_same += 1
            return
        self._gaps.append(gap)
        self._num_matched += matched.answer(pieces, len(turn))[: len(found)] == found

    def __str__(self) -> str:
        """Tell all of it in a line."""
        num = self._num_same + len(self._gaps)
        told = f"{self.name:14} {self._num_same:4} of {num} the same"
        if not self._gaps:
            return told
        return (
            f"{told}; {self._num_matched} of the other {len(self._gaps)} are the matched "
            f"reference's, and within {max(self._gaps):.4f} of the plain one's in log probability"
        )


def main(model: str, num_prompts: str = "200") -> None:
    """Print how many answers are the same in each way, and how near the different ones were."""
    loaded = LoadedModel(_start(model), lambda _done, _variant: None)
    folder = Path(tempfile.mkdtemp(prefix="llmd-exact-"))
    num_guesses = config.Engine().draft
    reference = Place(loaded, model, draft=0, folder=None)
    matched = MatchedReference(loaded, model)
    ways = (
        Way("slot", Place(loaded, model, draft=0, folder=None)),
        Way("RAM", Place(loaded, model, draft=0, folder=None), evicts=True),
        Way("disk", Place(loaded, model, draft=0, folder=folder), evicts=True),
        Way("guesses", Place(loaded, model, draft=num_guesses, folder=None), reuses=False),
        Way("guesses, RAM", Place(loaded, model, draft=num_guesses, folder=None), evicts=True),
    )
    prompts = _prompts(reference.backend, int(num_prompts))
    with contextlib.suppress(KeyboardInterrupt):
        for number, prompt in enumerate(prompts):
            first = _tokens(reference.answer(prompt, f"first {number}"))
            turn = [*prompt, *first, *reference.backend.tokenize([Part(text=_NEXT)], begin=False)]
            expected = reference.answer(turn, f"second {number}")
            for way in ways:
                way.compare(prompt, turn, expected, matched)
            print(f"\r{number + 1} of {len(prompts)}", end="", file=sys.stderr)
    print(file=sys.stderr)
    for way in ways:
        print(way)


def _start(model: str, draft: int = 0) -> Start:
    """Return how to load the model and use it: as by default, but with one sequence."""
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
        # What is kept is the scheduler's business.
        max_state_bytes=0,
        max_draft_tokens=draft,
    )


def _prompts(backend: LlamaBackend, number: int) -> list[list[int]]:
    """Return pieces of this project's own texts."""
    text = "\n".join(Path(name).read_text() for name in TEXTS)
    step = max(1, (len(text) - _PROMPT_CHARS) // number)
    pieces = [text[at : at + _PROMPT_CHARS] for at in range(0, step * number, step)]
    return [backend.tokenize([Part(text=piece)]) for piece in pieces]


def _tokens(answer: list[TokenLogprob]) -> list[int]:
    return [one.chosen.token for one in answer]


def _gap(expected: list[TokenLogprob], found: list[int]) -> float | None:
    """Return how much likelier the reference thought its first different token; None: no such."""
    for one, token in zip(expected, found, strict=True):
        if one.chosen.token != token:
            logprobs = {other.token: other.logprob for other in one.top}
            return one.chosen.logprob - logprobs.get(token, -math.inf)
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
