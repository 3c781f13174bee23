"""Compute embeddings of texts."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from llmd.chat.admission import POLL_S, Admission
from llmd.engine.engine import Engine
from llmd.engine.generation import Generation, GenerationEvent
from llmd.engine.protocol import Embed, Embedded
from llmd.errors import ClientGone, Draining, PromptTooLong, Unavailable


class EmbeddingResult(Struct, frozen=True, kw_only=True):
    """A vector for each input (float32, of length 1), and the number of tokens in all inputs."""

    vectors: list[bytes]
    num_tokens: int
    model: str


class Embeddings:
    """Compute embeddings with the embedding model, or else with the model that generates."""

    def __init__(self, engine: Engine, embedder: Engine | None, admission: Admission) -> None:
        self._engine = embedder or engine
        self._embedder = embedder
        self._admission = admission

    @property
    def model(self) -> str | None:
        """The name of the model that computes embeddings."""
        return self._engine.model

    def check_ready(self) -> None:
        """Raise `EngineLoading` or `EngineFailed` if the embedding model cannot serve now.

        Do nothing if the model that generates makes the embeddings.
        """
        if self._embedder is None:
            return
        try:
            self._embedder.check_ready()
        except Unavailable as error:
            message = f"the embedding model: {error.message}"
            raise type(error)(message, retry_after_s=error.retry_after_s) from error

    def embed(
        self, owner: str, inputs: list[str | list[int]], is_gone: Callable[[], bool]
    ) -> EmbeddingResult:
        """Return the embeddings of inputs, each of which is a text or a list of tokens.

        Raise the errors of `Admission.enter` and `Engine.ask`, and `InvalidField` or
        `PromptTooLong` for an input that cannot be embedded.
        """
        self._engine.check_ready()
        ticket = self._admission.enter(owner, None, is_gone)
        try:
            generation = self._engine.ask(Embed(0, inputs))
            try:
                while (event := _next(generation)) is None:
                    self._check(is_gone)
            except BaseException:
                # Nothing happens if the worker has ended it already.
                generation.cancel()
                raise
            assert isinstance(event, Embedded), "an answer to another query"  # noqa: S101
            return EmbeddingResult(
                vectors=event.vectors, num_tokens=event.num_tokens, model=generation.model
            )
        finally:
            ticket.release()

    def _check(self, is_gone: Callable[[], bool]) -> None:
        """Raise the error that ends the query early, if there is one."""
        if is_gone():
            raise ClientGone("the client went away")
        if self._admission.expired:
            raise Draining("the server went down before the embeddings were complete")

    def close(self) -> None:
        """Stop the embedding model, if there is one."""
        if self._embedder is not None:
            self._embedder.close()


def _next(generation: Generation) -> GenerationEvent | None:
    try:
        return generation.next(POLL_S)
    except PromptTooLong as error:
        # An embedding has inputs, not a prompt.
        error.param = "input"
        raise
