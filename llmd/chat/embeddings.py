"""Make vectors of texts."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from llmd.chat.admission import POLL_S, Admission
from llmd.engine.engine import Engine
from llmd.engine.generation import Generation, GenerationEvent
from llmd.engine.protocol import Embed, Embedded
from llmd.errors import ClientGone, Draining, PromptTooLong


class EmbeddingResult(Struct, frozen=True, kw_only=True):
    """A vector for each input, float32 and of length 1, and how many tokens the inputs had."""

    vectors: list[bytes]
    num_tokens: int
    model: str


class Embeddings:
    """Ask the model that is for embeddings, or the one that answers when there is no such."""

    def __init__(self, engine: Engine, embedder: Engine | None, admission: Admission) -> None:
        self._engine = embedder or engine
        self._embedder = embedder
        self._admission = admission

    @property
    def model(self) -> str | None:
        """Name of the model that makes the vectors."""
        return self._engine.model

    def embed(
        self, owner: str, inputs: list[str | list[int]], is_gone: Callable[[], bool]
    ) -> EmbeddingResult:
        """Return the vectors of texts, or of tokens that the client made itself.

        Raise the errors of `Admission.enter` and `Engine.ask`, and `InvalidField` or
        `PromptTooLong` for an input that cannot be embedded.
        """
        self._engine.check_ready()
        ticket = self._admission.enter(owner, None, is_gone)
        try:
            generation = self._engine.ask(Embed(0, inputs))
            while (event := _next(generation)) is None:
                if is_gone():
                    generation.cancel()
                    raise ClientGone("the client went away")
                if self._admission.expired:
                    generation.cancel()
                    raise Draining("the server went down before the vectors were complete")
            assert isinstance(event, Embedded), "not what was asked for"  # noqa: S101
            return EmbeddingResult(
                vectors=event.vectors, num_tokens=event.num_tokens, model=generation.model
            )
        finally:
            ticket.release()

    def close(self) -> None:
        """End the model that is for embeddings alone, if there is one."""
        if self._embedder is not None:
            self._embedder.close()


def _next(generation: Generation) -> GenerationEvent | None:
    try:
        return generation.next(POLL_S)
    except PromptTooLong as error:
        # There is no prompt here.
        error.param = "input"
        raise
