"""A scheduler over a real model in this process, and the answers that it gives."""

from __future__ import annotations

import itertools
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from llmd.engine.protocol import (
    Delta,
    Done,
    Event,
    Part,
    Sampling,
    Start,
    Started,
    Submit,
    TextPrompt,
    TokenLogprob,
)
from llmd.worker.kv.disk import DiskStates
from llmd.worker.llama.context import LlamaBackend
from llmd.worker.llama.model import LoadedModel
from llmd.worker.scheduling.scheduler import Scheduler

CLOSE = 0.05
"""Two tokens whose log probabilities differ by less may change places with the batch size."""


@dataclass
class Answer:
    """An answer, and how much of its prompt was computed for it."""

    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    num_prompt: int = 0
    num_cached: int = 0
    num_drafted: int = 0
    is_done: bool = False

    @property
    def tokens(self) -> list[int]:
        """The tokens of the answer."""
        return [one.chosen.token for one in self.logprobs]


class ModelScheduler:
    """Greedy answers of a real model. Use it from one thread only."""

    def __init__(
        self,
        model: Path,
        *,
        max_sequences: int = 8,
        kv_unified: bool = False,
        max_state_bytes: int = 1 << 26,
        max_draft_tokens: int = 0,
        disk_folder: Path | None = None,
    ) -> None:
        start = Start(
            model_path=str(model),
            library_dir=os.path.realpath(Path(sys.prefix, "engine")),
            num_context_tokens=512 * max_sequences,
            max_sequences=max_sequences,
            max_batch_tokens=64,
            num_threads=1,
            num_threads_batch=1,
            kv_type="f16",
            kv_unified=kv_unified,
            max_state_bytes=max_state_bytes,
            max_draft_tokens=max_draft_tokens,
        )
        self.backend = LlamaBackend(LoadedModel(start, lambda _done, _variant: None), start)
        self._disk = disk_folder and DiskStates(disk_folder, "made", 1 << 28, print)
        self._answers: dict[int, Answer] = {}
        self._ids = itertools.count(1)
        self.scheduler = Scheduler(
            self.backend,
            self._take,
            max_state_bytes=max_state_bytes,
            clock=time.monotonic,
            disk=self._disk or None,
        )

    def ask(self, *texts: str, owner: str = "ann", session: str = "1", num: int = 24) -> Answer:
        """Answer a prompt; `texts` alternate between the template's words and messages."""
        return self.ask_together([texts], owner=owner, session=session, num=num)[0]

    def ask_together(
        self,
        prompts: list[tuple[str, ...]],
        *,
        owner: str = "ann",
        session: str = "",
        num: int = 24,
    ) -> list[Answer]:
        """Answer prompts side by side."""
        answers = [self._submit(texts, owner, session, num) for texts in prompts]
        while self.scheduler.has_work:
            self.scheduler.step()
        assert all(answer.is_done for answer in answers)
        return answers

    def save(self) -> None:
        """Write all idle states to the disk, as a worker does when it stops."""
        while self.scheduler.save_one():
            pass
        if self._disk:
            self._disk.close()

    def _submit(self, texts: tuple[str, ...], owner: str, session: str, num: int) -> Answer:
        request_id = next(self._ids)
        answer = self._answers[request_id] = Answer()
        parts = [Part(text=text, literal=at % 2 == 0) for at, text in enumerate(texts)]
        self.scheduler.submit(
            Submit(
                id=request_id,
                owner=owner,
                session=session,
                prompt=TextPrompt(parts),
                sampling=Sampling(temperature=0),
                max_tokens=num,
                num_logprobs=2,
                ignores_end=True,
            )
        )
        return answer

    def _take(self, event: Event) -> None:
        if isinstance(event, Started):
            answer = self._answers[event.id]
            answer.num_prompt, answer.num_cached = event.num_prompt_tokens, event.num_cached_tokens
        elif isinstance(event, Delta):
            self._answers[event.id].text += event.text
            self._answers[event.id].logprobs += event.logprobs
        elif isinstance(event, Done):
            self._answers[event.id].is_done = True
            self._answers[event.id].num_drafted = event.num_drafted_tokens


class Reference:
    """The answers of a single sequence without any reuse."""

    def __init__(self, model: Path) -> None:
        self._scheduler = ModelScheduler(model, max_sequences=1, max_state_bytes=0)
        self._owners = itertools.count()

    def check(self, answer: Answer, *texts: str) -> None:
        """Fail unless an answer is the same token for token.

        Where the reference itself hesitates between two tokens, the batch size may decide, and
        what follows is another text.
        """
        expected = self._scheduler.ask(
            *texts, owner=str(next(self._owners)), num=len(answer.logprobs)
        )
        assert len(answer.tokens) == len(expected.tokens)
        for at, (got, wanted) in enumerate(zip(answer.logprobs, expected.logprobs, strict=True)):
            first, second = wanted.top[:2]
            if first.logprob - second.logprob < CLOSE:
                return
            assert got.chosen.token == wanted.chosen.token, f"another token at {at}"
            assert abs(got.chosen.logprob - wanted.chosen.logprob) < CLOSE, f"unsure at {at}"
