"""Turn the tokens of an answer into events of text, thoughts and tool calls, piece by piece."""

from __future__ import annotations

from llmd.engine.protocol import Delta, Progress, TokenLogprob
from llmd.worker.answer.parser import AnswerParser
from llmd.worker.answer.text import TextStream


class AnswerStream:
    """The events of one answer. A piece is held back while it could still become something else."""

    def __init__(self, request_id: int, stop: list[str], parser: AnswerParser | None) -> None:
        self._request_id = request_id
        self._text = TextStream(stop)
        self._parser = parser
        self._logprobs: list[TokenLogprob] = []
        self.shows_special = parser is not None
        """Whether special tokens are text for the parser. Some models mark tool calls by them."""

    @property
    def stopped(self) -> bool:
        """Whether the text has reached a stop string."""
        return self._text.stopped

    @property
    def has_calls(self) -> bool:
        """Whether the answer contains a tool call."""
        return self._parser is not None and self._parser.has_calls

    def push(self, piece: bytes, logprob: TokenLogprob | None) -> list[Progress]:
        """Add the bytes of a token, with its log probability if requested; return new events."""
        if logprob is not None:
            self._logprobs.append(logprob)
        return self._events(self._text.push(piece))

    def finish(self) -> list[Progress]:
        """Return the events that were held back, at the end of the answer."""
        events = self._events(self._text.finish())
        if self._parser is not None:
            events += [self._with_logprobs(event) for event in self._parser.finish()]
        if self._logprobs:
            events.append(self._with_logprobs(Delta(self._request_id, "")))
        return events

    def _events(self, text: str) -> list[Progress]:
        if not text:
            return []
        if self._parser is None:
            return [self._with_logprobs(Delta(self._request_id, text))]
        return [self._with_logprobs(event) for event in self._parser.push(text)]

    def _with_logprobs(self, event: Progress) -> Progress:
        """Return the event, with the pending log probabilities if it is text."""
        if not self._logprobs or not isinstance(event, Delta):
            return event
        logprobs, self._logprobs = self._logprobs, []
        return Delta(event.id, event.text, logprobs)
