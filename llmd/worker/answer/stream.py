"""Turn the tokens of an answer into events of text, thoughts and tool calls, piece by piece."""

from __future__ import annotations

from llmd.engine.protocol import CallDelta, Delta, Progress, TokenLogprob
from llmd.worker.answer.parser import AnswerEvent, AnswerParser
from llmd.worker.answer.text import StopFilter, TextDecoder


class AnswerStream:
    """The events of one answer. A piece is held back while it could still become something else.

    Stop strings are looked for in the text alone, not in thoughts or calls.
    """

    def __init__(self, request_id: int, stop: list[str], parser: AnswerParser | None) -> None:
        self._request_id = request_id
        self._decoder = TextDecoder()
        self._stop = StopFilter(stop)
        self._parser = parser
        self._logprobs: list[TokenLogprob] = []
        self._has_calls = False
        self.shows_special = parser is not None
        """Whether special tokens are text for the parser. Some models mark tool calls by them."""

    @property
    def stopped(self) -> bool:
        """Whether the text has reached a stop string."""
        return self._stop.stopped

    @property
    def has_calls(self) -> bool:
        """Whether the answer contains a tool call."""
        return self._has_calls

    def push(self, piece: bytes, logprob: TokenLogprob | None) -> list[Progress]:
        """Add the bytes of a token, with its log probability if requested; return new events."""
        if logprob is not None:
            self._logprobs.append(logprob)
        text = self._decoder.push(piece)
        return self._events(self._parsed(text) if text else [])

    def finish(self) -> list[Progress]:
        """Return the events that were held back, at the end of the answer."""
        text = self._decoder.finish()
        parsed = self._parsed(text) if text else []
        if self._parser is not None:
            parsed += self._parser.finish()
        events = self._events(parsed) + self._released()
        if self._logprobs:
            events.append(self._with_logprobs(Delta(self._request_id, "")))
        return events

    def _parsed(self, text: str) -> list[AnswerEvent]:
        return [Delta(self._request_id, text)] if self._parser is None else self._parser.push(text)

    def _events(self, parsed: list[AnswerEvent]) -> list[Progress]:
        """Return the events as far as no stop string precedes them."""
        events: list[Progress] = []
        for event in parsed:
            if self.stopped:
                break
            if isinstance(event, Delta):
                if text := self._stop.push(event.text):
                    events.append(self._with_logprobs(Delta(self._request_id, text)))
                continue
            # No stop string reaches across a call or a thought.
            events += self._released()
            self._has_calls = self._has_calls or isinstance(event, CallDelta)
            events.append(event)
        return events

    def _released(self) -> list[Progress]:
        text = self._stop.finish()
        return [self._with_logprobs(Delta(self._request_id, text))] if text else []

    def _with_logprobs(self, event: Delta) -> Delta:
        """Return the text with the pending log probabilities."""
        if not self._logprobs:
            return event
        logprobs, self._logprobs = self._logprobs, []
        return Delta(event.id, event.text, logprobs)
