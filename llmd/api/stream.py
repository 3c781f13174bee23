"""Server-sent events: an answer as it is made."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterator

import msgspec

from llmd.api import errors
from llmd.api.access import RequestLog
from llmd.chat.answer import Answer
from llmd.errors import ClientGone, LlmdError

log = logging.getLogger(__name__)

PING_AFTER_S = 10.0
"""Proxies close a connection on which nothing comes for some time, 60 s as a rule."""

_PING = b": ping\n\n"


class EventStream:
    """The events ``token``, then ``done`` or ``error``, for the thread of the connection.

    The server calls `close` at the end, also when the client has gone. No `read` here: Falcon
    would hand an object that has one to the server as a file.
    """

    def __init__(self, answer: Answer, request_log: RequestLog) -> None:
        self._answer = answer
        self._log = request_log
        self._events = self._make_events()
        # Until its end has been taken: what is closed before has lost its client.
        self._status = 499
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self._events

    def close(self) -> None:
        """End the answer, wherever it is, and log the request. Idempotent."""
        if self._closed:
            return
        self._closed = True
        try:
            self._events.close()
            self._answer.close()
        finally:
            self._log.add_usage(self._answer.usage)
            self._log.write(self._status)

    def _make_events(self) -> Generator[bytes, None, None]:
        # The headers go out with the first bytes: the client sees at once that it was accepted.
        yield _PING
        sent_at = time.monotonic()
        try:
            for text in self._answer:
                now = time.monotonic()
                if text is not None:
                    yield event("token", {"text": text})
                elif now - sent_at >= PING_AFTER_S:
                    yield _PING
                else:
                    continue
                sent_at = now
            result = self._answer.result
            if result is not None:
                yield event("done", result)
                self._status = 200
        except ClientGone:
            return
        except LlmdError as error:
            self._status = errors.kind_of(error).status
            yield event("error", errors.body_of(error))
        except Exception:
            # The status line is long sent: the client must not take the end for a whole answer.
            log.exception("a stream failed")
            self._status = 500
            yield event("error", errors.internal_body())


def event(name: str, data: object) -> bytes:
    """Return one event with JSON data."""
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"
