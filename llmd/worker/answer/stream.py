"""What the tokens of an answer become: text, thoughts and tool calls, piece by piece."""

from __future__ import annotations

from llmd.engine.protocol import Delta, Progress, TokenLogprob
from llmd.worker.answer.parser import AnswerParser
from llmd.worker.answer.text import TextStream


class AnswerStream:
    """The events of one answer, of which only what is certain is given away."""

    def __init__(self, request_id: int, stop: list[str], parser: AnswerParser | None) -> None:
        self._request_id = request_id
        self._text = TextStream(stop)
        self._parser = parser
        self._logprobs: list[TokenLogprob] = []
        self.shows_special = parser is not None
        """Whether special tokens count as text: some models mark tool calls by them."""

    @property
    def stopped(self) -> bool:
        """Whether a stop string came."""
        return self._text.stopped

    @property
    def has_calls(self) -> bool:
        """Whether the model called a tool."""
        return self._parser is not None and self._parser.has_calls

    def push(self, piece: bytes, logprob: TokenLogprob | None) -> list[Progress]:
        """Take the bytes of a token and, if it was asked for, its log probability."""
        if logprob is not None:
            self._logprobs.append(logprob)
        return self._events(self._text.push(piece))

    def finish(self) -> list[Progress]:
        """Return what was held back, when no further token comes."""
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
        """Send the log probabilities along with the next text."""
        if not self._logprobs or not isinstance(event, Delta):
            return event
        logprobs, self._logprobs = self._logprobs, []
        return Delta(event.id, event.text, logprobs)
