"""Server-sent events as a client reads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from falcon import testing

from tests.support.service import Service

Events = list[tuple[str, Any]]
"""The name and the data of each event."""


def parse_events(raw: bytes) -> Events:
    """Return the events of a stream. Comments are left out."""
    assert raw.endswith(b"\n\n")
    events: Events = []
    for block in raw.decode().removesuffix("\n\n").split("\n\n"):
        if block.startswith(":"):
            continue
        name, data = block.split("\n")
        assert name.startswith("event: ")
        assert data.startswith("data: ")
        events.append((name.removeprefix("event: "), msgspec.json.decode(data[6:])))
    return events


class Stream:
    """A streamed answer, read chunk by chunk as the HTTP server does."""

    def __init__(self, service: Service, **fields: Any) -> None:
        self.is_gone = False
        self._response = testing.StartResponseMock()
        body = msgspec.json.encode({"prompt": "hi", "stream": True} | fields)
        headers = {"Authorization": service.user}
        environ = testing.create_environ("/answer", method="POST", body=body, headers=headers)
        environ["waitress.client_disconnected"] = lambda: self.is_gone
        self.body: Any = service.app(environ, self._response)
        self.chunks: Iterator[bytes] = iter(self.body)

    @property
    def status(self) -> str | None:
        """The status line, which is sent before any chunk."""
        return self._response.status

    @property
    def headers(self) -> dict[str, str]:
        """The headers, which are sent before any chunk."""
        headers: dict[str, str] = self._response.headers_dict
        return headers
