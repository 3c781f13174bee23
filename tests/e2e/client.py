"""A client of the daemon that exposes statuses, headers and events as they were sent."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from msgspec import Struct

HOST = "127.0.0.1"
_SILENCE_S = 180.0


class Reply(Struct, frozen=True, kw_only=True):
    """A complete answer."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def code(self) -> str:
        """The error's code, which programs may rely on."""
        return str(self.body["error"]["code"])


class Event(Struct, frozen=True, kw_only=True):
    """One server-sent event, and its arrival on the monotonic clock."""

    name: str
    data: Any
    at: float


class Stream:
    """The events of one answer. Leaving the block closes the connection, even within an answer."""

    def __init__(self, sock: socket.socket, response: http.client.HTTPResponse) -> None:
        self._sock = sock
        self._response = response

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Event]:
        """Yield the events until the stream ends. Raise OSError if it is cut off."""
        name = ""
        # Keep-alive comments between events prevent a timeout of the socket.
        deadline = time.monotonic() + _SILENCE_S
        # A line without its end was cut off too.
        while (line := self._readline()).endswith(b"\n"):
            if line.startswith(b"event: "):
                name = line[7:].strip().decode()
            elif line.startswith(b"data: "):
                yield Event(name=name, data=json.loads(line[6:]), at=time.monotonic())
                deadline = time.monotonic() + _SILENCE_S
            elif time.monotonic() > deadline:
                raise AssertionError(f"no event for {_SILENCE_S:g} s")
        if name not in {"done", "error"}:
            raise ConnectionError("the stream was cut off")

    def next(self, name: str) -> Event:
        """Return the next event; it must have this name."""
        event = next(iter(self))
        assert event.name == name, event
        return event

    def rest(self) -> list[Event]:
        """Return all remaining events."""
        return list(self)

    def close(self) -> None:
        """Disconnect at once, like a client whose window was closed."""
        self._sock.close()
        self._response.close()

    def _readline(self) -> bytes:
        try:
            return self._response.readline()
        except http.client.HTTPException as error:
            raise ConnectionError("the stream was cut off") from error


class Client:
    """A client of one daemon with one key. Each request has a connection of its own."""

    def __init__(self, port: int, key: str | None) -> None:
        self._port = port
        self._headers = {} if key is None else {"Authorization": key}

    def call(self, method: str, path: str, body: object = None) -> Reply:
        """Send a request with a JSON body and return the answer, whatever its status."""
        raw = None if body is None else json.dumps(body).encode()
        return self.send(method, path, raw)

    def send(self, method: str, path: str, raw: bytes | None) -> Reply:
        """Send `raw` as the body. Raise OSError if no complete answer comes."""
        sock, response = self._open(method, path, raw)
        with sock, response:
            try:
                content = response.read()
            except http.client.HTTPException as error:
                raise ConnectionError("the answer was cut off") from error
            headers = {name.lower(): value for name, value in response.getheaders()}
            body = json.loads(content) if content else None
            return Reply(status=response.status, headers=headers, body=body)

    def get(self, path: str) -> Reply:
        """Send a GET request."""
        return self.call("GET", path)

    def ask(self, prompt: str, **fields: Any) -> Any:
        """Return the body of the answer to a prompt; its status must be 200."""
        reply = self.call("POST", "/answer", {"prompt": prompt} | fields)
        assert reply.status == 200, reply
        return reply.body

    def stream(self, prompt: str, **fields: Any) -> Stream:
        """Start a streamed answer. Raise `Refused` if its status is not 200."""
        raw = json.dumps({"prompt": prompt, "stream": True} | fields).encode()
        sock, response = self._open("POST", "/answer", raw)
        if response.status != 200:
            with sock, response:
                raise Refused(response.status, response.read())
        return Stream(sock, response)

    def post_and_leave(self, prompt: str, **fields: Any) -> socket.socket:
        """Send a question and return the socket unread; to close it is to disconnect."""
        raw = json.dumps({"prompt": prompt} | fields).encode()
        sock = socket.create_connection((HOST, self._port), _SILENCE_S)
        head = [f"{name}: {value}" for name, value in self._headers.items()]
        head = ["POST /answer HTTP/1.1", "Host: llmd", f"Content-Length: {len(raw)}", *head]
        sock.sendall("\r\n".join([*head, "", ""]).encode() + raw)
        return sock

    def _open(
        self, method: str, path: str, raw: bytes | None
    ) -> tuple[socket.socket, http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=_SILENCE_S)
        connection.connect()
        # The connection drops its reference to the socket if the server will close it.
        sock = connection.sock
        assert isinstance(sock, socket.socket)
        try:
            connection.request(method, path, raw, self._headers)
            return sock, connection.getresponse()
        except http.client.HTTPException as error:
            sock.close()
            raise ConnectionError("no answer came") from error
        except OSError:
            sock.close()
            raise


class Refused(Exception):
    """The server refused a stream."""

    def __init__(self, status: int, content: bytes) -> None:
        super().__init__(f"{status}: {content.decode('utf-8', 'replace')}")
        self.status = status
