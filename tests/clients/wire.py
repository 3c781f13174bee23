"""Requests and answers as they are on the wire, for what a client's library hides."""

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
    """An answer, its body not read yet into anything."""

    status: int
    headers: Headers
    content: bytes

    @property
    def body(self) -> Any:
        """The JSON of the body."""
        return json.loads(self.content)

    @property
    def lines(self) -> list[str]:
        """The lines of a stream that say something: each is an event of its own."""
        assert self.headers["content-type"].startswith("text/event-stream"), self
        assert self.content.endswith(b"\n\n"), self
        events = self.content.decode().removesuffix("\n\n").split("\n\n")
        assert all("\n" not in event for event in events), self
        return [event for event in events if not event.startswith(":")]

    @property
    def chunks(self) -> list[Any]:
        """What the events of a stream say, without the mark of its end."""
        *lines, last = self.lines
        assert last == "data: [DONE]"
        assert all(line.startswith("data: ") for line in lines)
        return [json.loads(line.removeprefix("data: ")) for line in lines]


def bearer(key: str) -> Headers:
    """Return the header by which most clients send a key."""
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
    """Send a body that must be taken."""
    answer = send(daemon, "POST", path, body, headers)
    assert answer.status == 200, answer
    return answer
