"""Dispatch the commands that the daemon sends."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from llmd.engine.protocol import (
    Beat,
    Cancel,
    ChatPrompt,
    Command,
    Detokenize,
    Embed,
    Event,
    Forget,
    KeptStates,
    ListStates,
    Part,
    Refused,
    Render,
    Start,
    Submit,
    Text,
    Tokenize,
    Tokens,
    refusal_event,
)
from llmd.errors import InvalidField, LlmdError
from llmd.worker.backend import Backend, EmbeddingBackend
from llmd.worker.embedding.queue import EmbedQueue
from llmd.worker.kv.disk import DiskStates
from llmd.worker.scheduling.grammar_thread import Compiled, GrammarThread
from llmd.worker.scheduling.scheduler import Scheduler
from llmd.worker.text_thread import LONG_CHARS, TextThread, Tokenized

MAX_QUERY_CHARS = 262_144
"""The longest text to tokenise."""

MAX_PIECES_PER_STEP = 4096
"""How many tokens of queries are spelled out between two steps of the model: some 10 ms."""

SAVE_WITHIN_S = 3.0
"""How long states are copied when the daemon stops: it kills the worker after five seconds."""


class Dispatcher:
    """Carry out commands for one model, one step of the model at a time.

    Events go to `emit`. Compiled grammars and long texts that were tokenised come back through
    `post`, as one more command.
    """

    def __init__(
        self,
        backend: Backend,
        emit: Callable[[Event], None],
        post: Callable[[Compiled | Tokenized], None],
        *,
        max_state_bytes: int,
        clock: Callable[[], float],
        disk: DiskStates | None = None,
    ) -> None:
        self._backend = backend
        self._emit = emit
        self._clock = clock
        self._disk = disk
        self._scheduler = Scheduler(
            backend, emit, max_state_bytes=max_state_bytes, clock=clock, disk=disk
        )
        self._grammars = GrammarThread(backend, post)
        self._texts = TextThread(post)
        self._embeds = EmbedQueue(backend.make_embedder, emit, self._texts)
        self._spellings: deque[_Spelling] = deque()

    @property
    def has_work(self) -> bool:
        """Whether a further step would do something."""
        return self._scheduler.has_work or self._embeds.has_work or bool(self._spellings)

    def step(self) -> None:
        """Go on with the queries, and run the model once for answers and once for embeddings."""
        if self._spellings:
            self._spell()
        if has_answers := self._scheduler.has_work:
            self._scheduler.step()
        if self._embeds.has_work:
            began = self._clock()
            num_tokens = self._embeds.step(is_shared=has_answers)
            self._scheduler.beat(self._clock() - began, num_tokens)

    def save_one(self) -> bool:
        """Write one KV state to the disk while idle; return False if all are there."""
        return self._scheduler.save_one()

    def close(self) -> None:
        """Write the KV states of all sessions to the disk, as far as the time allows."""
        if self._disk is None:
            return
        deadline = self._clock() + SAVE_WITHIN_S
        while self._clock() < deadline and self._scheduler.save_one():
            pass
        self._disk.close()

    def handle(self, command: Command | Compiled | Tokenized) -> None:
        """Carry out a command. A refusal is an event as well."""
        if isinstance(command, Cancel):
            self._cancel(command.id)
        elif isinstance(command, Forget):
            self._scheduler.forget(command.owner, command.session)
            self._grammars.forget(command.owner, command.session)
        elif isinstance(command, Compiled):
            self._enqueue(command)
        elif isinstance(command, Tokenized):
            command.deliver()
        elif isinstance(command, Embed):
            self._embeds.submit(command.id, command.inputs)
        elif not isinstance(command, Start):
            try:
                if isinstance(command, Submit):
                    self._submit(command)
                else:
                    self._answer(command)
            except LlmdError as error:
                self._emit(refusal_event(command.id, error))

    def _submit(self, request: Submit) -> None:
        sequence = self._scheduler.prepare(request)
        prompt = request.prompt
        has_tools = isinstance(prompt, ChatPrompt) and prompt.tools is not None
        if has_tools or request.constraint is not None:
            self._grammars.submit(sequence)
        else:
            self._scheduler.enqueue(sequence, None)

    def _enqueue(self, compiled: Compiled) -> None:
        sequence = self._grammars.take(compiled.sequence.request.id)
        if sequence is None:
            return
        if compiled.error is None:
            self._scheduler.enqueue(sequence, compiled.matcher)
        else:
            self._emit(refusal_event(sequence.request.id, compiled.error))

    def _cancel(self, request_id: int) -> None:
        sequence = self._grammars.take(request_id)
        if sequence is None:
            self._scheduler.cancel(request_id)
            self._embeds.cancel(request_id)
        else:
            self._emit(sequence.done("cancelled", self._clock()))

    def _answer(self, query: Tokenize | Detokenize | Render | ListStates) -> None:
        if isinstance(query, Tokenize):
            if len(query.text) > MAX_QUERY_CHARS:
                raise InvalidField(
                    f"the text has more than {MAX_QUERY_CHARS} characters", param="content"
                )
            self._tokenize(query)
        elif isinstance(query, ListStates):
            self._emit(KeptStates(query.id, self._scheduler.kept()))
        elif isinstance(query, Detokenize):
            self._check_tokens(query.tokens)
            self._begin_to_spell(query, query.tokens)
        else:
            text = "".join(part.text for part in self._backend.render(query.prompt))
            self._emit(Text(query.id, text))

    def _tokenize(self, query: Tokenize) -> None:
        def read() -> list[int]:
            parts = [Part(text=query.text, literal=query.parse_special)]
            return self._backend.tokenize(parts, begin=query.with_special)

        def then(tokens: list[int] | LlmdError) -> None:
            if isinstance(tokens, LlmdError):
                self._emit(refusal_event(query.id, tokens))
            else:
                self._begin_to_spell(query, tokens)

        if len(query.text) > LONG_CHARS:
            self._texts.tokenize(read, then)
        else:
            then(read())

    def _check_tokens(self, tokens: list[int]) -> None:
        num = self._backend.num_vocabulary
        for token in tokens:
            if token >= num:
                raise InvalidField(
                    f"the model has no token {token}: its last is {num - 1}", param="tokens"
                )

    def _begin_to_spell(self, query: Tokenize | Detokenize, tokens: list[int]) -> None:
        """Answer a query whose tokens are known: at once if they are few, or else step by step."""
        self._spellings.append(_Spelling(query, tokens))
        if len(self._spellings) == 1 and len(tokens) <= MAX_PIECES_PER_STEP:
            self._spell()

    def _spell(self) -> None:
        """Spell tokens of the first query, and answer it after its last token."""
        spelling = self._spellings.popleft()
        begin = len(spelling.pieces)
        spelling.pieces += [
            self._backend.piece(token, special=True)
            for token in spelling.tokens[begin : begin + MAX_PIECES_PER_STEP]
        ]
        query, pieces = spelling.query, spelling.pieces
        if len(pieces) < len(spelling.tokens):
            # Queries take turns.
            self._spellings.append(spelling)
        elif isinstance(query, Tokenize):
            self._emit(Tokens(id=query.id, tokens=spelling.tokens, pieces=pieces))
        else:
            self._emit(Text(query.id, b"".join(pieces).decode("utf-8", "replace")))


@dataclass(eq=False)
class _Spelling:
    """A query whose tokens are being spelled out, and the pieces so far."""

    query: Tokenize | Detokenize
    tokens: list[int]
    pieces: list[bytes] = field(default_factory=list)


class EmbeddingDispatcher:
    """Carry out commands for a model that only makes embeddings."""

    def __init__(
        self,
        embedder: EmbeddingBackend,
        emit: Callable[[Event], None],
        clock: Callable[[], float],
    ) -> None:
        self._embeds = EmbedQueue(lambda: embedder, emit)
        self._emit = emit
        self._clock = clock

    @property
    def has_work(self) -> bool:
        """Whether a further step would do something."""
        return self._embeds.has_work

    def step(self) -> None:
        """Run the model once."""
        began = self._clock()
        num_tokens = self._embeds.step()
        self._emit(
            Beat(
                num_running=self._embeds.num_jobs,
                num_waiting=0,
                num_prompt_tokens=self._embeds.num_tokens,
                num_cached_tokens=0,
                num_completion_tokens=0,
                num_step_tokens=num_tokens,
                step_s=self._clock() - began,
            )
        )

    def save_one(self) -> bool:
        """Return False: there are no KV states to keep."""
        return False

    def close(self) -> None:
        """Do nothing: there are no KV states to keep."""

    def handle(self, command: Command | Compiled | Tokenized) -> None:
        """Carry out a command, or refuse it if it is not about embeddings."""
        if isinstance(command, Embed):
            self._embeds.submit(command.id, command.inputs)
        elif isinstance(command, Cancel):
            self._embeds.cancel(command.id)
        elif isinstance(command, Submit | Tokenize | Detokenize | Render | ListStates):
            self._emit(Refused(id=command.id, message="this model only makes embeddings"))
