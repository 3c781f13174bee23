"""A client that streams many answers at once and notes the time of each piece."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec

from bench.wire import Chunk, CutOff, Events, Response

PATIENCE_S = 900.0
"""Timeout for one answer, in seconds. It is long, because slowness is not an error."""

_UNDER_WAY = 8
"""Number of pieces after which an answer counts as running steadily."""

Json = dict[str, Any]


class Answer:
    """The answer to one request. Times are seconds of `time.perf_counter`."""

    def __init__(self, num_wanted: int | None) -> None:
        """Expect `num_wanted` tokens, or any number of them if None."""
        self.num_wanted = num_wanted
        self.began = time.perf_counter()
        self.times: list[float] = []
        """Time of each piece. A server may put several tokens into one piece."""
        self.pieces: list[str] = []
        self.is_under_way = asyncio.Event()
        """Set once the answer runs steadily, or has ended."""
        self.ended = 0.0
        self.error = ""
        self.num_prompt: int | None = None
        self.num_cached: int | None = None
        self._usage_tokens: int | None = None

    def take(self, chunk: Chunk, now: float) -> None:
        """Note the contents of a chunk."""
        if chunk.error is not None:
            self.error = f"error within the stream: {chunk.error}"
        if piece := chunk.piece:
            self.times.append(now)
            self.pieces.append(piece)
            if len(self.times) == _UNDER_WAY:
                self.is_under_way.set()
        if chunk.usage is not None:
            self._usage_tokens = chunk.usage.completion_tokens
            self.num_prompt = chunk.usage.prompt_tokens
            details = chunk.usage.prompt_tokens_details
            self.num_cached = details.cached_tokens if details else None

    def end(self) -> None:
        """Note the end, and an error if the answer does not have the wanted length.

        The length is checked only if the server reports its usage: a piece may hold more than one
        token, because a character can need several.
        """
        self.ended = time.perf_counter()
        self.is_under_way.set()
        if self.error:
            return
        if not self.times:
            self.error = "no piece came"
        elif self.num_wanted and self._usage_tokens not in (None, self.num_wanted):
            self.error = f"{self._usage_tokens} tokens, not {self.num_wanted}"

    @property
    def text(self) -> str:
        """The whole text of the answer."""
        return "".join(self.pieces)

    @property
    def num_tokens(self) -> int:
        """Number of tokens: as the server reports it, otherwise the number of pieces."""
        return len(self.times) if self._usage_tokens is None else self._usage_tokens

    @property
    def num_computed(self) -> int | None:
        """Number of prompt tokens that were computed, or None if the server does not report it."""
        if self.num_prompt is None or self.num_cached is None:
            return None
        return self.num_prompt - self.num_cached

    @property
    def first_s(self) -> float:
        """Seconds from the request to the first piece."""
        return self.times[0] - self.began

    @property
    def decode_rate(self) -> float:
        """Tokens per second after the first piece."""
        spent_s = self.times[-1] - self.times[0]
        return (self.num_tokens - 1) / spent_s if spent_s else 0.0

    def num_between(self, since: float, until: float) -> float:
        """Return the number of tokens that came after `since` and up to `until`."""
        num_pieces = sum(since < at <= until for at in self.times)
        return num_pieces * self.num_tokens / len(self.times)

    def gaps_s(self, since: float = 0.0) -> list[float]:
        """Return the seconds between pieces of which the later one came after `since`."""
        pairs = zip(self.times, self.times[1:], strict=False)
        return [later - earlier for earlier, later in pairs if later >= since]


class _Dropped(Exception):
    """The server closed the connection before it got the request."""


class _Connection(asyncio.Protocol):
    """One connection, for one request at a time."""

    def __init__(self) -> None:
        self.is_open = True
        self._transport: asyncio.Transport | None = None
        self._response = Response()
        self._sink: Callable[[bytes], None] = lambda _: None
        self._done: asyncio.Future[Response] | None = None
        self._any_came = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._any_came = True
        try:
            body = self._response.feed(data)
            if body:
                self._sink(body)
        except (CutOff, ValueError) as error:
            self._fail(error)
            return
        if self._response.is_complete:
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._done is None or self._done.done():
            return
        if not self._any_came:
            self._done.set_exception(_Dropped())
            return
        try:
            self._response.end()
        except CutOff as error:
            self._fail(exc or error)
        else:
            self._finish()

    async def send(self, raw: bytes, sink: Callable[[bytes], None]) -> Response:
        """Send a request, pass the body's bytes to `sink` as they come, and return the head."""
        assert self._transport is not None
        self._response, self._sink, self._any_came = Response(), sink, False
        self._done = asyncio.get_running_loop().create_future()
        if not self.is_open:
            raise _Dropped
        self._transport.write(raw)
        try:
            return await asyncio.wait_for(self._done, PATIENCE_S)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection, even within an answer."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def _finish(self) -> None:
        if not self._response.keeps_open:
            self.close()
        if self._done is not None and not self._done.done():
            self._done.set_result(self._response)

    def _fail(self, error: Exception) -> None:
        self.close()
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)


class Client:
    """Ask one server. Connections are kept and used again, as clients' libraries do."""

    def __init__(self, host: str, port: int, key: str = "", defaults: Json | None = None) -> None:
        """Take what every body has, such as the model's name, as `defaults`."""
        self._host, self._port = host, port
        self._key = key
        self._defaults = defaults or {}
        self._idle: list[_Connection] = []
        self.num_dropped = 0
        """Number of kept connections that the server had closed."""

    async def chat(self, messages: list[Json], num_tokens: int, **fields: Any) -> Answer:
        """Stream the answer to a conversation."""
        return await self.stream("/v1/chat/completions", num_tokens, messages=messages, **fields)

    async def go_on(self, prompt: str, num_tokens: int, **fields: Any) -> Answer:
        """Stream the continuation of a text."""
        return await self.stream("/v1/completions", num_tokens, prompt=prompt, **fields)

    async def stream(
        self,
        path: str,
        num_tokens: int,
        *,
        answer: Answer | None = None,
        conversation: str = "",
        **fields: Any,
    ) -> Answer:
        """Ask for exactly `num_tokens`; fill `answer`, or a new one. A failure is its `error`."""
        body = self._defaults | {"max_tokens": num_tokens, "stream": True} | fields
        body["stream_options"] = {"include_usage": True}
        headers = {"X-Conversation-Id": conversation} if conversation else {}
        answer = answer or Answer(num_tokens)
        return await self._fill(answer, self._request("POST", path, body, headers))

    async def say(self, session: str, prompt: str, profile: str, num_tokens: int) -> Answer:
        """Stream up to `num_tokens` of the next answer of a conversation that llmd stores."""
        body = {"session_id": session, "prompt": prompt, "profile": profile, "stream": True}
        raw = self._request("POST", "/answer", body | {"max_tokens": num_tokens}, {})
        return await self._fill(Answer(None), raw)

    async def _fill(self, answer: Answer, raw: bytes) -> Answer:
        """Send a request for a stream, and note its events in `answer`."""
        events, failure = Events(), bytearray()

        def sink(data: bytes) -> None:
            now = time.perf_counter()
            chunks = events.feed(data)
            for chunk in chunks:
                answer.take(chunk, now)
            if not chunks and not answer.times:
                failure.extend(data)

        answer.began = time.perf_counter()
        try:
            response = await self._send(raw, sink)
        except (OSError, CutOff, _Dropped, TimeoutError, ValueError) as error:
            answer.error = f"{type(error).__name__}: {error}"
        else:
            if response.status != 200:
                answer.error = f"{response.status}: {bytes(failure[:300])!r}"
        answer.end()
        return answer

    async def call(self, method: str, path: str, body: object = None) -> Any:
        """Return the decoded JSON answer to a request. Raise `OSError` for an error."""
        found = bytearray()
        response = await self._send(self._request(method, path, body, {}), found.extend)
        if response.status // 100 != 2:
            raise OSError(f"{method} {path}: {response.status}: {bytes(found[:300])!r}")
        return msgspec.json.decode(bytes(found))

    def close(self) -> None:
        """Close the connections."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def _request(self, method: str, path: str, body: object, more: dict[str, str]) -> bytes:
        raw = b"" if body is None else msgspec.json.encode(body)
        headers = {"Host": f"{self._host}:{self._port}", "Content-Type": "application/json"}
        headers |= {"Content-Length": str(len(raw))} | more
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {headers[name]}" for name in headers)]
        return "\r\n".join([*lines, "", ""]).encode() + raw

    async def _send(self, raw: bytes, sink: Callable[[bytes], None]) -> Response:
        """Send on a kept connection, or on a new one if the server has closed the kept ones."""
        while self._idle:
            connection = self._idle.pop()
            try:
                return self._keep(connection, await connection.send(raw, sink))
            except _Dropped:
                self.num_dropped += 1
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, self._host, self._port)
        return self._keep(connection, await connection.send(raw, sink))

    def _keep(self, connection: _Connection, response: Response) -> Response:
        if connection.is_open:
            self._idle.append(connection)
        return response
