"""A small client of the daemon's HTTP API, for JSON calls and for streamed answers."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from llmd import __version__
from llmd.errors import InvalidField, LlmdError, Unavailable

_CONNECT_TIMEOUT_S = 10.0
_MAX_BODY_BYTES = 67_108_864
_MAX_LINE_BYTES = 16_777_216


class ApiError(LlmdError):
    """An error response of the daemon, or no valid response. `code` is the API's error code."""

    def __init__(self, message: str, status: int = 0, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Unreachable(Unavailable):
    """Nothing answers at the daemon's address."""


class Response(Struct, frozen=True, kw_only=True):
    """The status of a response and its JSON object."""

    status: int
    body: dict[str, Any]


class Event(Struct, frozen=True, kw_only=True):
    """One server-sent event with its JSON object."""

    name: str
    data: dict[str, Any]


class Client:
    """Call the daemon at one address, with a new connection for each call.

    It is a class because all calls share the address and the key. It ignores the proxies that the
    environment names.
    """

    def __init__(self, url: str, key: str | None, *, timeout_s: float = 60.0) -> None:
        """Raise `InvalidField` if `url` is not the URL of a server, or `key` cannot be a key."""
        self.url = url.rstrip("/")
        self._parts = urlsplit(self.url)
        try:
            is_good = self._parts.scheme in {"http", "https"} and bool(self._parts.hostname)
            self._port = self._parts.port
        except ValueError:
            is_good = False
        if not is_good or self._parts.query or self._parts.username is not None:
            message = (
                "the address must look like http://192.168.1.10:5000, without user name or query"
            )
            raise InvalidField(message, param="url")
        if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
            raise InvalidField("the key must be one word of letters, digits and _", param="key")
        self._key = key
        self._timeout_s = timeout_s

    @property
    def has_key(self) -> bool:
        """Return whether calls carry a key."""
        return self._key is not None

    def request(self, method: str, path: str, body: object = None) -> Response:
        """Return the response, whatever its status.

        Raise `Unreachable`, or `ApiError` if the response is not JSON.
        """
        with self._open(method, path, body) as response:
            return self._read(response)

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Return the body of a successful response. Raise `ApiError` or `Unreachable`."""
        return _check(self.request(method, path, body)).body

    def events(self, path: str, body: object) -> Iterator[Event]:
        """Yield the events of a POST as they arrive. Closing the generator ends the request.

        Raise `ApiError` for an error response or an error event, or `Unreachable`.
        """
        with self._open("POST", path, body) as response:
            if response.getheader("content-type", "").startswith("text/event-stream"):
                for event in _read_events(response):
                    if event.name == "error":
                        raise _error(Response(status=response.status, body=event.data))
                    yield event
                return
            _check(self._read(response))
            raise ApiError(f"{self.url} does not stream its answer: is llmd running there?")

    @contextmanager
    def _open(self, method: str, path: str, body: object) -> Iterator[http.client.HTTPResponse]:
        kind = (
            http.client.HTTPSConnection
            if self._parts.scheme == "https"
            else http.client.HTTPConnection
        )
        connection = kind(str(self._parts.hostname), self._port, timeout=_CONNECT_TIMEOUT_S)
        headers = {"accept": "application/json", "user-agent": f"llmd/{__version__}"}
        if self._key is not None:
            headers["authorization"] = f"Bearer {self._key}"
        content = None
        if body is not None:
            content = json.dumps(body).encode()
            headers["content-type"] = "application/json"
        try:
            try:
                connection.connect()
            except OSError as error:
                raise Unreachable(_unreachable(self.url, error)) from error
            connection.sock.settimeout(self._timeout_s)
            try:
                connection.request(method, f"{self._parts.path}{path}", content, headers)
                yield connection.getresponse()
            except TimeoutError as error:
                message = f"{self.url} sent nothing for {self._timeout_s:g} seconds"
                raise ApiError(message) from error
            except (OSError, http.client.HTTPException) as error:
                raise ApiError(
                    f"{self.url} closed the connection before its response was complete"
                ) from error
        finally:
            connection.close()

    def _read(self, response: http.client.HTTPResponse) -> Response:
        content = response.read(_MAX_BODY_BYTES)
        try:
            body = json.loads(content) if content else {}
        except ValueError:
            body = None
        if not isinstance(body, dict):
            message = f"{self.url} answers {response.status} without JSON: is llmd running there?"
            raise ApiError(message, response.status)
        return Response(status=response.status, body=body)


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text[:1].lower() + text[1:]


def _unreachable(url: str, error: OSError) -> str:
    return (
        f"llmd does not answer at {url} ({_reason(error)}): "
        "start it with `systemctl start llmd` or `llmd serve`, or give its address with --url"
    )


def _check(response: Response) -> Response:
    if response.status >= 400:
        raise _error(response)
    return response


def _error(response: Response) -> ApiError:
    """Return the error in a response of llmd, or one that names the status of another server."""
    inner = response.body.get("error")
    fields = inner if isinstance(inner, dict) else {}
    message = fields.get("message") or response.body.get("message") or f"HTTP {response.status}"
    return ApiError(str(message), response.status, str(fields.get("code") or ""))


def _read_events(response: http.client.HTTPResponse) -> Iterator[Event]:
    """Yield an event for each block of `event:` and `data:` lines. Comments are keep-alives."""
    name, data = "message", ""
    while line := response.readline(_MAX_LINE_BYTES):
        field, _, value = line.decode("utf-8", "replace").rstrip("\r\n").partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data += value
        elif line in {b"\n", b"\r\n"}:
            if data:
                yield _event(name, data)
            name, data = "message", ""


def _event(name: str, data: str) -> Event:
    try:
        fields = json.loads(data)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise ApiError("an event of the answer is not JSON: is llmd running there?")
    return Event(name=name, data=fields)
