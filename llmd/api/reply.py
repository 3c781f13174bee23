"""Write an answer's body."""

from __future__ import annotations

from collections.abc import Sequence

import falcon
import msgspec


def send(resp: falcon.Response, value: object) -> None:
    """Send a value as JSON."""
    resp.content_type = falcon.MEDIA_JSON
    resp.data = msgspec.json.encode(value)


def send_page(
    resp: falcon.Response, name: str, items: Sequence[object], limit: int, last: str | int | None
) -> None:
    """Send a page of a list; `next` is the `after` of the next page, null on the last one."""
    send(resp, {name: items, "next": last if len(items) == limit else None})
