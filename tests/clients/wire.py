"""Raw requests and responses, for details that a client's library hides."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from tests.e2e.client import HOST
from tests.e2e.daemon import Daemon
from tests.e2e.waiting import PATIENCE_S

Headers = Mapping[str, str]


class Raw(Struct, frozen=True, kw_only=True):
    """A response whose body has not been decoded."""

    status: int
    headers: Headers
    content: bytes

    @property
    def body(self) -> Any:
        """The body, decoded from JSON."""
        return json.loads(self.content)

    @property
    def lines(self) -> list[str]:
        """The events of a stream without comments. Each event must be one line."""
        assert self.headers["content-type"].startswith("text/event-stream"), self
        assert self.content.endswith(b"\n\n"), self
        events = self.content.decode().removesuffix("\n\n").split("\n\n")
        assert all("\n" not in event for event in events), self
        return [event for event in events if not event.startswith(":")]

    @property
    def chunks(self) -> list[Any]:
        """The decoded data of a stream's events, without the end mark."""
        *lines, last = self.lines
        assert last == "data: [DONE]"
        assert all(line.startswith("data: ") for line in lines)
        return [json.loads(line.removeprefix("data: ")) for line in lines]


def bearer(key: str) -> Headers:
    """Return the header in which most clients send a key."""
    return {"Authorization": f"Bearer {key}"}


def send(
    daemon: Daemon, method: str, path: str, body: object = None, headers: Headers | None = None
) -> Raw:
    """Send a request, with the admin's key unless `headers` are given."""
    connection = http.client.HTTPConnection(HOST, daemon.port, timeout=PATIENCE_S)
    raw = None if body is None else json.dumps(body).encode()
    try:
        connection.request(
            method, path, raw, dict(bearer(daemon.key) if headers is None else headers)
        )
        response = connection.getresponse()
        return Raw(
            status=response.status,
            headers={name.lower(): value for name, value in response.getheaders()},
            content=response.read(),
        )
    finally:
        connection.close()


def post(daemon: Daemon, path: str, body: object, headers: Headers | None = None) -> Raw:
    """Send a body that must be accepted, and return the response."""
    answer = send(daemon, "POST", path, body, headers)
    assert answer.status == 200, answer
    return answer
