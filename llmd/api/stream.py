"""Server-sent events: an answer as it is made."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator
from typing import Generic, Protocol, TypeVar

import falcon
import msgspec

from llmd.api import errors
from llmd.api.request_log import RequestLog, log_of
from llmd.chat.outcome import Timings, Usage
from llmd.errors import ClientGone, LlmdError

log = logging.getLogger(__name__)

PING_AFTER_S = 10.0
"""Proxies close a connection on which nothing comes for some time, 60 s as a rule."""

PING = b": ping\n\n"

OUTLET = "llmd.outlet"
"""Where a request's environment has its `Outlet`, if its server has one."""

T = TypeVar("T")
Piece_contra = TypeVar("Piece_contra", contravariant=True)
Item_co = TypeVar("Item_co", covariant=True)


class Source(Protocol[Item_co]):
    """What is streamed: gives None now and then while there is nothing new."""

    def __iter__(self) -> Iterator[Item_co | None]: ...

    @property
    def usage(self) -> Usage | None:
        """The tokens, once they are known."""

    @property
    def timings(self) -> Timings | None:
        """How long it took in the engine, once that is known."""

    def push_to(self, is_ready: Callable[[], bool], push: Callable[[Item_co], None]) -> None:
        """Let another thread hand items to `push` while whoever iterates waits for one.

        Neither function may call the source. `close` ends it.
        """

    def close(self) -> None:
        """End it, wherever it is. Idempotent."""


class Outlet(Protocol):
    """The way to a client for another thread than that of its connection."""

    def is_ready(self) -> bool:
        """Tell whether the client has taken all so far."""

    def write(self, events: bytes) -> None:
        """Send, without waiting for the client. Nothing is raised when it has gone."""


class Form(Protocol[Piece_contra]):
    """How an answer is written as events."""

    def begin(self) -> bytes:
        """Return what goes out with the headers."""

    def piece(self, piece: Piece_contra) -> bytes:
        """Return the events of a piece, if any."""

    def end(self) -> bytes:
        """Return the events of the end."""

    def error(self, body: dict[str, object]) -> bytes:
        """Return the event of an error."""


class EventStream(Generic[T]):
    """The events of an answer, for the thread of the connection.

    The server calls `close` at the end, also when the client has gone. No `read` here: Falcon
    would hand an object that has one to the server as a file.
    """

    def __init__(
        self,
        source: Source[T],
        form: Form[T],
        request_log: RequestLog,
        outlet: Outlet | None = None,
    ) -> None:
        self._source = source
        self._form = form
        self._log = request_log
        self._outlet = outlet
        self._sent_at = 0.0
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
            self._source.close()
        finally:
            self._log.add_usage(self._source.usage, self._source.timings)
            self._log.write(self._status)

    def _make_events(self) -> Generator[bytes, None, None]:
        # The headers go out with the first bytes: the client sees at once that it was accepted.
        yield self._form.begin() or PING
        self._sent_at = time.monotonic()
        try:
            if self._outlet is not None:
                self._source.push_to(self._outlet.is_ready, self._push)
            for piece in self._source:
                now = time.monotonic()
                events = b"" if piece is None else self._form.piece(piece)
                if not events and now - self._sent_at >= PING_AFTER_S:
                    events = PING
                if events:
                    yield events
                    self._sent_at = now
            yield self._form.end()
            self._status = 200
        except ClientGone:
            return
        except LlmdError as error:
            self._status = errors.kind_of(error).status
            yield self._form.error(errors.body_of(error))
        except Exception:
            # The status line is long sent: the client must not take the end for a whole answer.
            log.exception("a stream failed")
            self._status = 500
            yield self._form.error(errors.internal_body())

    def _push(self, piece: T) -> None:
        """Send a piece from the thread that brings it: the connection's need not be woken."""
        events = self._form.piece(piece)
        if events and self._outlet is not None:
            self._outlet.write(events)
            self._sent_at = time.monotonic()


def send_stream(
    req: falcon.Request, resp: falcon.Response, source: Source[T], form: Form[T]
) -> None:
    """Answer with the events of a source."""
    request_log = log_of(req)
    request_log.is_streaming = True
    resp.content_type = "text/event-stream; charset=utf-8"
    resp.set_header("Cache-Control", "no-store")
    # nginx would hold the tokens back until its buffer is full.
    resp.set_header("X-Accel-Buffering", "no")
    resp.stream = EventStream(source, form, request_log, req.env.get(OUTLET))


def take_whole(req: falcon.Request, source: Source[T]) -> None:
    """Take an answer to its end, or end it."""
    try:
        # It is the source that keeps the text.
        source.push_to(lambda: True, lambda _piece: None)
        for _ in source:
            pass
    finally:
        source.close()
        log_of(req).add_usage(source.usage, source.timings)


def event(name: str, data: object) -> bytes:
    """Return one named event with JSON data."""
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"
