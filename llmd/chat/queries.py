"""Queries to the worker that need no generation: tokens, texts, prompts and KV states."""

from __future__ import annotations

from collections.abc import Callable

from llmd.chat.admission import POLL_S
from llmd.engine.engine import Engine
from llmd.engine.protocol import (
    ChatPrompt,
    Detokenize,
    KeptState,
    KeptStates,
    ListStates,
    Query,
    Render,
    Text,
    Tokenize,
    Tokens,
)
from llmd.errors import ClientGone


class Queries:
    """Convert texts with the loaded model, and list its KV states."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def tokenize(
        self, text: str, is_gone: Callable[[], bool], *, begin: bool, parse_special: bool
    ) -> list[tuple[int, bytes]]:
        """Return the tokens of a text with the bytes of each. Raise `InvalidField`."""
        query = Tokenize(id=0, text=text, with_special=begin, parse_special=parse_special)
        answered = self._ask(query, is_gone)
        assert isinstance(answered, Tokens), "an answer to another query"  # noqa: S101
        return list(zip(answered.tokens, answered.pieces, strict=True))

    def detokenize(self, tokens: list[int], is_gone: Callable[[], bool]) -> str:
        """Return the text of tokens. Raise `InvalidField` for a token that is unknown."""
        return self._text(Detokenize(0, tokens), is_gone)

    def render(self, prompt: ChatPrompt, is_gone: Callable[[], bool]) -> str:
        """Return the text that the model's chat template renders. Raise `InvalidField`."""
        return self._text(Render(0, prompt), is_gone)

    def kept(self, is_gone: Callable[[], bool]) -> list[KeptState]:
        """Return the KV states of all sessions, the fastest to continue from first."""
        answered = self._ask(ListStates(0), is_gone)
        assert isinstance(answered, KeptStates), "an answer to another query"  # noqa: S101
        return answered.states

    def _text(self, query: Query, is_gone: Callable[[], bool]) -> str:
        answered = self._ask(query, is_gone)
        assert isinstance(answered, Text), "an answer to another query"  # noqa: S101
        return answered.text

    def _ask(self, query: Query, is_gone: Callable[[], bool]) -> object:
        generation = self._engine.ask(query)
        while (event := generation.next(POLL_S)) is None:
            if is_gone():
                raise ClientGone("the client went away")
        return event
