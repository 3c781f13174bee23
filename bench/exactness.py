"""Whether reuse, restored states and guesses change an answer: greedy, token for token.

    exactness.py MODEL [PROMPTS]

Each of the prompts is the second turn of a conversation. The reference reads it from its first
token, guesses nothing and is alone. The others go on from what the first turn left: in its slot,
in RAM after others have had the slot, on the disk after that; with guesses, and each of these.

llama.cpp itself rounds differently with the number of tokens in a batch. Where an answer differs,
the reference's logits at the first different token tell how near the two tokens were: a fault of
llmd would not choose its moments by that.
"""

from __future__ import annotations

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
from llmd.worker.context import LlamaBackend
from llmd.worker.disk import DiskStates, fingerprint_of
from llmd.worker.llama import LoadedModel
from llmd.worker.scheduler import Scheduler

NUM_ANSWER = 32
NUM_LIKELIEST = 5
TEXTS = ("README.md", "ARCHITECTURE.md", "docs/api.md", "docs/operations.md", "docs/clients.md")
_PROMPT_CHARS = 400
_NEXT = "\n\nNow say it in other words, and then once more:\n"
_ids = itertools.count(1)


class Place:
    """A scheduler of one slot over the model, with or without guesses and states."""

    def __init__(self, loaded: LoadedModel, model: str, *, draft: int, folder: Path | None) -> None:
        start = _start(model, draft)
        self.backend = LlamaBackend(loaded, start)
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

    def evict(self, number: int) -> None:
        """Let another owner have the slot."""
        self.scheduler.save_one()
        self.answer([1000 + number % 1000, 2000], f"other {number}", 1)


def main(model: str, num_prompts: str = "200") -> None:
    """Print how many answers are the same in each way, and how near the different ones were."""
    loaded = LoadedModel(_start(model), lambda _done, _variant: None)
    folder = Path(tempfile.mkdtemp(prefix="llmd-exact-"))
    reference = Place(loaded, model, draft=0, folder=None)
    ways = {
        "slot": (Place(loaded, model, draft=0, folder=None), False),
        "RAM": (Place(loaded, model, draft=0, folder=None), True),
        "disk": (Place(loaded, model, draft=0, folder=folder), True),
        "guesses": (Place(loaded, model, draft=3, folder=None), None),
        "guesses, RAM": (Place(loaded, model, draft=3, folder=None), True),
    }
    same = dict.fromkeys(ways, 0)
    gaps: dict[str, list[float]] = {name: [] for name in ways}
    prompts = _prompts(reference.backend, int(num_prompts))
    for number, prompt in enumerate(prompts):
        first = _tokens(reference.answer(prompt, f"first {number}"))
        turn = [*prompt, *first, *reference.backend.tokenize([Part(text=_NEXT)], begin=False)]
        expected = reference.answer(turn, f"second {number}")
        for name, (place, is_evicted) in ways.items():
            owner = f"{name} {number}"
            if is_evicted is not None:
                place.answer(prompt, owner)
            if is_evicted:
                place.evict(number)
            gap = _gap(expected, _tokens(place.answer(turn, owner)))
            if gap is None:
                same[name] += 1
            else:
                gaps[name].append(gap)
        print(f"\r{number + 1} of {len(prompts)}", end="", file=sys.stderr)
    print(file=sys.stderr)
    for name in ways:
        far = max(gaps[name], default=0.0)
        told = f"; the others by at most {far:.4f} in log probability" if gaps[name] else ""
        print(f"{name:14} {same[name]:4} of {len(prompts)} the same{told}")


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
