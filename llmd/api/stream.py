"""Server-sent events: send an answer to the client while it is generated."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterator
from typing import Generic, Protocol, TypeVar

import falcon
import msgspec

from llmd.api import errors
from llmd.api.request_log import RequestLog, log_of
from llmd.chat.outcome import Timings, Usage
from llmd.errors import ClientGone, LlmdError

log = logging.getLogger(__name__)

PING_AFTER_S = 10.0
"""Seconds without an event after which a ping is sent.

Proxies close a connection that is silent for some time, usually 60 s.
"""

PING = b": ping\n\n"
"""A comment, which clients ignore."""

T = TypeVar("T")
Piece_contra = TypeVar("Piece_contra", contravariant=True)
Item_co = TypeVar("Item_co", covariant=True)


class Source(Protocol[Item_co]):
    """The items of an answer. Iteration yields None now and then while there is no new item."""

    def __iter__(self) -> Iterator[Item_co | None]: ...

    @property
    def usage(self) -> Usage | None:
        """The token counts, once they are known."""

    @property
    def timings(self) -> Timings | None:
        """The times in the engine, once they are known."""

    def close(self) -> None:
        """End the answer, finished or not. Idempotent."""


class Form(Protocol[Piece_contra]):
    """The form in which an answer is written as events."""

    def begin(self) -> bytes:
        """Return the events that are sent with the headers, if any."""

    def piece(self, piece: Piece_contra) -> bytes:
        """Return the events of a piece, if any."""

    def end(self) -> bytes:
        """Return the events that end the answer."""

    def error(self, body: dict[str, object]) -> bytes:
        """Return the event of an error."""


class EventStream(Generic[T]):
    """The events of an answer, iterated by the thread of the connection.

    The server calls `close` at the end, also when the client has gone. This class must not have a
    method `read`: Falcon would pass such an object to the server as a file.
    """

    def __init__(self, source: Source[T], form: Form[T], request_log: RequestLog) -> None:
        self._source = source
        self._form = form
        self._log = request_log
        self._events = self._make_events()
        # A stream that is closed before its last event was taken has lost its client.
        self._status = 499
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self._events

    def close(self) -> None:
        """End the answer, finished or not, and log the request. Idempotent."""
        if self._closed:
            return
        self._closed = True
        try:
            self._events.close()
            self._source.close()
        finally:
            self._log.add_usage(self._source.usage, self._source.timings)
            self._log.write(self._status)

    def _make_events(self) -> Generator[bytes, None, None]:
        # The server sends the headers with the first bytes: the client learns at once that the
        # request was accepted.
        yield self._form.begin() or PING
        sent_at = time.monotonic()
        try:
            for piece in self._source:
                now = time.monotonic()
                events = b"" if piece is None else self._form.piece(piece)
                if not events and now - sent_at >= PING_AFTER_S:
                    events = PING
                if events:
                    yield events
                    sent_at = now
            yield self._form.end()
            self._status = 200
        except ClientGone:
            return
        except LlmdError as error:
            self._status = errors.kind_of(error).status
            yield self._form.error(errors.body_of(error))
        except Exception:
            # The status line was sent before: only an event can report that the answer failed.
            log.exception("a stream failed")
            self._status = 500
            yield self._form.error(errors.internal_body())


def send_stream(
    req: falcon.Request, resp: falcon.Response, source: Source[T], form: Form[T]
) -> None:
    """Answer a request with the events of a source."""
    request_log = log_of(req)
    request_log.is_streaming = True
    resp.content_type = "text/event-stream; charset=utf-8"
    resp.set_header("Cache-Control", "no-store")
    # Without it nginx buffers the events until its buffer is full.
    resp.set_header("X-Accel-Buffering", "no")
    resp.stream = EventStream(source, form, request_log)


def take_whole(req: falcon.Request, source: Source[T]) -> None:
    """Run an answer to its end without sending its pieces. Close it in any case."""
    try:
        for _ in source:
            pass
    finally:
        source.close()
        log_of(req).add_usage(source.usage, source.timings)


def event(name: str, data: object) -> bytes:
    """Return the bytes of a named event with JSON data."""
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"
